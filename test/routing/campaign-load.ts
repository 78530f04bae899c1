import { SlonikError, sql } from 'slonik'
import type { IsolationLevel, RoutedSlonik, Trunkline } from '../../src/index.ts'

/** What was seen. */
export class Findings {
  /** Writes that a read with their token saw. */
  pairs = 0
  untokened = 0
  /** Reads that showed less than the write of their token. */
  readonly stale: string[] = []
  /** Errors that nothing excuses: the primary was well, or the error is none that a user is told to expect. */
  readonly failures: string[] = []
  /** Errors while the primary was not well, by code. */
  readonly told: Record<string, number> = {}
  /** Errors told in all. */
  toldCount = 0
  longestMs = 0
  /** Servers that carried out a write, by port. */
  readonly writtenOn: Record<string, number> = {}
  /** What resolved, with its token. */
  readonly written: { readonly worker: number; readonly n: number; readonly token: string }[] = []
  /** The last value that each worker wrote and saw. */
  readonly last: Record<string, number> = {}

  tell(code: string): void {
    this.told[code] = (this.told[code] ?? 0) + 1
    this.toldCount += 1
  }
}

/** While the primary is not well, requests may fail; also those that were under way when that began or ended. */
export class Trouble {
  #isOn = false
  #turns = 0

  begin(): void {
    this.#isOn = true
    this.#turns += 1
  }

  end(): void {
    this.#isOn = false
    this.#turns += 1
  }

  /** Call it at the end of a request: true when it met with trouble. */
  watch(): () => boolean {
    const turns = this.#turns
    return () => this.#isOn || this.#turns !== turns
  }
}

/** Errors that say to the caller what happened; others are a defect, whatever happened to the primary. */
const expected = new Set([
  'commit_unknown',
  'connection_failed',
  'fallback_overloaded',
  'no_primary',
  'pool_exhausted',
  'replica_lag',
  'timed_out',
  'write_lost',
  '57P01',
  '57P02',
  '57P03',
])

/** pg's own words over the connections of a pool. */
const broken = /terminated|ECONNRESET|ECONNREFUSED|socket/

function codeOf(thrown: unknown): string | undefined {
  // slonik wraps what pg says.
  const { cause } = thrown as { cause?: unknown }
  const error = thrown instanceof SlonikError && cause instanceof Error ? cause : thrown
  const { code = '', message } = error as { code?: string; message: string }
  if (expected.has(code)) return code
  return broken.test(`${code} ${message}`) ? 'connection' : undefined
}

const isolations: readonly IsolationLevel[] = ['read committed', 'repeatable read']
const update = `with kept as (insert into written values ($1, $2))
  update pair set n = $2 where worker = $1 returning inet_server_port() as port`
const select = 'select n from pair where worker = $1'

interface Queryable {
  query(text: string, values: unknown[]): Promise<{ rows: Record<string, number>[] }>
}

/** What transactions go through. */
export interface Ways {
  readonly trunkline: Trunkline
  readonly slonik: RoutedSlonik
}

/** One worker: writes its row and reads it back with the token, by one way after the other. */
export class Worker {
  readonly #trunkline: Trunkline
  readonly #slonik: RoutedSlonik
  readonly #worker: number
  readonly #findings: Findings

  constructor({ trunkline, slonik }: Ways, worker: number, findings: Findings) {
    this.#trunkline = trunkline
    this.#slonik = slonik
    this.#worker = worker
    this.#findings = findings
  }

  async run(trouble: Trouble, isOver: () => boolean): Promise<void> {
    const findings = this.#findings
    for (let n = 1; !isOver(); n += 1) {
      const wasTroubled = trouble.watch()
      try {
        if (n % 5 === 0) await this.#rolledBack(n)
        const found = await this.#pair(n)
        // Nobody else writes its row: less is stale, and another value was rolled back or never written.
        if (found !== n) findings.stale.push(`${this.#worker} wrote ${n}, read ${found}`)
        findings.pairs += 1
        findings.last[this.#worker] = n
        if (n % 4 === 0) await this.#readAnything()
      } catch (error) {
        const code = codeOf(error)
        if (code !== undefined && wasTroubled()) findings.tell(code)
        else findings.failures.push(`${this.#worker}/${n}: ${(error as Error).stack ?? String(error)}`)
      }
    }
  }

  /** A request, whose time counts, also when it fails. */
  async #timed<Result>(request: Promise<Result>): Promise<Result> {
    const begun = performance.now()
    try {
      return await request
    } finally {
      this.#findings.longestMs = Math.max(this.#findings.longestMs, performance.now() - begun)
    }
  }

  async #pair(n: number): Promise<number> {
    if (n % 2 === 0) return this.#byToken(n)
    if (n % 3 === 0) return this.#byPools(n)
    return n % 6 === 1 ? this.#bySession(n) : this.#bySlonik(n)
  }

  /** A transaction that nobody may ever see, with others inside of it. */
  async #rolledBack(n: number): Promise<void> {
    const abandoned = new Error('abandoned')
    const write = this.#trunkline.write(async (tx) => {
      await this.#write(tx, -n)
      await this.#trunkline.read(async (inside) => this.#seen(inside))
      await this.#trunkline.read(async (own) => this.#seen(own), { requiresNew: true })
      throw abandoned
    })
    await this.#timed(write).catch((error: unknown) => {
      if (error !== abandoned) throw error
    })
  }

  async #bySlonik(n: number): Promise<number> {
    const write = this.#trunkline.write(async (tx) => this.#write(tx, n), { withToken: true })
    const { token } = await this.#timed(write)
    this.#note(n, token)
    const statement = sql.unsafe`select n from pair where worker = ${this.#worker}`
    const read = this.#slonik.read(async (tx) => tx.oneFirst(statement), { after: token })
    return Number(await this.#timed(read))
  }

  async #byToken(n: number): Promise<number> {
    const write = this.#trunkline.write(async (tx) => this.#write(tx, n), { withToken: true })
    const { token } = await this.#timed(write)
    this.#note(n, token)
    const isolation = isolations[Math.trunc(n / 2) % 2]
    return this.#timed(this.#trunkline.read(async (tx) => this.#seen(tx), { after: token, isolation }))
  }

  async #bySession(n: number): Promise<number> {
    return this.#trunkline.routing.session(async (session) => {
      await this.#timed(this.#trunkline.write(async (tx) => this.#write(tx, n)))
      this.#note(n, session.token)
      const read = async (): Promise<number> => this.#timed(this.#trunkline.read(async (tx) => this.#seen(tx)))
      const first = await read()
      // Once seen, always seen.
      return Math.min(first, await read())
    })
  }

  async #byPools(n: number): Promise<number> {
    const { read, write } = this.#trunkline.routing.pools()
    return this.#trunkline.routing.session(async (session) => {
      await this.#timed(this.#write(write, n))
      await session.settled()
      if (!session.isPinned) this.#note(n, session.token)
      return this.#timed(this.#seen(read))
    })
  }

  async #write(tx: Queryable, n: number): Promise<void> {
    const { rows } = await tx.query(update, [this.#worker, n])
    const port = String(rows[0]?.['port'])
    this.#findings.writtenOn[port] = (this.#findings.writtenOn[port] ?? 0) + 1
  }

  async #seen(tx: Queryable): Promise<number> {
    return (await tx.query(select, [this.#worker])).rows[0]?.['n'] ?? -1
  }

  async #readAnything(): Promise<void> {
    await this.#timed(this.#trunkline.read(async (tx) => this.#seen(tx)))
    this.#findings.untokened += 1
  }

  #note(n: number, token: string | undefined): void {
    if (token !== undefined) this.#findings.written.push({ worker: this.#worker, n, token })
  }
}
