import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import type { TestDatabase } from '../support/index.ts'

/** A stream of numbers from 0 up to 1; the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export const workloadTables = ['account', 'item', 'scratch', 'quiet'] as const

const accounts = 120
const items = 300
const eventKeys = 40

/** Tables that are captured, with some rows, and one that is not: it counts the events of a key under its row's lock. */
export async function createWorkload(database: TestDatabase): Promise<void> {
  await database.query(`
    create table account (id integer primary key, counter integer not null default 0, balance integer not null default 0);
    create table item (id integer primary key, counter integer not null default 0, note text);
    create table scratch (id integer primary key, note text);
    create table quiet (id integer primary key, note text);
    create table tally (topic text, key text, n integer not null default 0, primary key (topic, key));
    insert into account (id) select generate_series(1, ${accounts});
    insert into item (id, note) select g, 'first' from generate_series(1, ${items}, 2) as g;
    insert into tally select t, k::text from unnest(array['order', 'payment']) as t, generate_series(1, ${eventKeys}) as k`)
  for (const table of workloadTables) await database.query('select trunkline.capture($1)', [table])
  // PREPARE TRANSACTION refuses after a NOTIFY.
  await database.query("select trunkline.set_wake('off')")
  await database.adminQuery(`alter database ${database.name} set deadlock_timeout = '30ms'`)
}

export interface WorkloadOptions {
  readonly writers: number
  readonly transactions: number
  readonly seed: number
}

export interface WorkloadReport {
  readonly committed: number
  readonly rolledBack: number
}

/** Writers that run random transactions at the same time, each on its own connection. */
export async function runWorkload(database: TestDatabase, options: WorkloadOptions): Promise<WorkloadReport> {
  let left = options.transactions
  const report = { committed: 0, rolledBack: 0 }
  const prepared: Promise<void>[] = []
  const writer = async (index: number): Promise<void> => {
    const client = await database.connect()
    await client.query("set lock_timeout = '1s'")
    const random = randomFrom(options.seed + index)
    while (left > 0) {
      left -= 1
      const transaction = new Transaction(client, random)
      const outcome = await transaction.run(`${options.seed}-${index}-${left}`)
      if (outcome.isPrepared) prepared.push(endPrepared(database, outcome.name, random))
      report[outcome.isKept ? 'committed' : 'rolledBack'] += 1
    }
    await client.end()
  }
  await Promise.all(Array.from({ length: options.writers }, (_, index) => writer(index)))
  await Promise.all(prepared)
  return report
}

/** Another session decides later what becomes of it. */
async function endPrepared(database: TestDatabase, name: string, random: () => number): Promise<void> {
  const verb = random() < 0.75 ? 'commit' : 'rollback'
  await delay(random() * 60)
  await database.adminQuery(`${verb} prepared '${name}'`)
}

interface Outcome {
  readonly name: string
  readonly isPrepared: boolean
  readonly isKept: boolean
}

class Transaction {
  readonly #client: pg.Client
  readonly #random: () => number

  constructor(client: pg.Client, random: () => number) {
    this.#client = client
    this.#random = random
  }

  async run(name: string): Promise<Outcome> {
    const isolation = this.#chance(0.15) ? 'repeatable read' : 'read committed'
    await this.#client.query(`begin isolation level ${isolation}`)
    try {
      if (this.#chance(0.3)) await this.#earlyXid()
      const steps = 1 + this.#upTo(6)
      for (let step = 0; step < steps; step += 1) await this.#step(true)
      return await this.#end(name)
    } catch {
      // A deadlock, a serialization failure, a key that is taken: nothing of it must be read.
      await this.#client.query('rollback')
      return { name, isPrepared: false, isKept: false }
    }
  }

  async #end(name: string): Promise<Outcome> {
    if (this.#chance(0.08)) {
      await this.#client.query(`prepare transaction '${name}'`)
      return { name, isPrepared: true, isKept: true }
    }
    const isKept = this.#chance(0.85)
    await this.#client.query(isKept ? 'commit' : 'rollback')
    return { name, isPrepared: false, isKept }
  }

  /** Long before it writes: a lower xid than those of writers that commit first. */
  async #earlyXid(): Promise<void> {
    await this.#client.query('select txid_current()')
    await delay(this.#random() * 15)
  }

  async #step(mayNest: boolean): Promise<void> {
    const dice = this.#random()
    if (dice < 0.3)
      await this.#client.query('update account set counter = counter + 1, balance = balance + $2 where id = $1', [
        this.#one(accounts),
        this.#upTo(100),
      ])
    else if (dice < 0.34) await this.#updateRange()
    else if (dice < 0.5) await this.#putItem()
    else if (dice < 0.57)
      await this.#client.query('update item set id = $2, counter = counter + 1 where id = $1', [
        this.#one(items),
        this.#one(items),
      ])
    else if (dice < 0.64) await this.#client.query('delete from item where id = $1', [this.#one(items)])
    else if (dice < 0.7) await this.#insertScratch()
    else if (dice < 0.71) await this.#client.query('truncate scratch')
    else if (dice < 0.86) await this.#emit()
    // What a writer does about every 4,096 rows; here more often, so that readers go by ticks.
    else if (dice < 0.89)
      await this.#client.query('insert into trunkline.tick (log_id) select last_value from trunkline.log_id_seq')
    else if (dice < 0.93) await delay(this.#random() * 8)
    else if (mayNest) await this.#nest()
  }

  async #nest(): Promise<void> {
    await this.#client.query('savepoint inner_part')
    const isKept = this.#chance(0.5)
    try {
      await this.#step(false)
      await this.#step(false)
    } catch (error) {
      await this.#client.query('rollback to inner_part')
      if ((error as { code?: string }).code !== '23505') throw error
      return
    }
    await this.#client.query(isKept ? 'release inner_part' : 'rollback to inner_part')
  }

  async #updateRange(): Promise<void> {
    const from = this.#one(accounts)
    await this.#client.query('update account set counter = counter + 1 where id between $1 and $2', [from, from + 10])
  }

  async #putItem(): Promise<void> {
    await this.#client.query(
      'insert into item (id, note) values ($1, $2) on conflict (id) do update set counter = item.counter + 1, note = excluded.note',
      [this.#one(items), `note ${this.#upTo(1000)}`],
    )
  }

  async #insertScratch(): Promise<void> {
    const from = this.#upTo(2 ** 30)
    const count = this.#chance(0.02) ? 5000 : this.#upTo(40)
    if (this.#chance(0.4)) {
      const lines = Array.from({ length: count }, (_, index) => `${from + index}\tcopied\n`)
      await copyIn(this.#client, 'copy scratch from stdin', lines.join(''))
    } else {
      await this.#client.query(
        "insert into scratch select g, 'inserted' from generate_series($1::integer, $2) as g on conflict do nothing",
        [from, from + count],
      )
    }
  }

  async #emit(): Promise<void> {
    const topic = this.#chance(0.5) ? 'order' : 'payment'
    const key = String(this.#one(eventKeys))
    const { rows } = await this.#client.query<{ n: number }>(
      'update tally set n = n + 1 where topic = $1 and key = $2 returning n',
      [topic, key],
    )
    await this.#client.query('select trunkline.emit($1, $2, $3, $4)', [topic, key, 'counted', { n: rows[0]?.n }])
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  #upTo(max: number): number {
    return Math.floor(this.#random() * max)
  }

  #one(max: number): number {
    return 1 + this.#upTo(max)
  }
}

interface CopyConnection {
  query(text: string): void
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

/** COPY … FROM STDIN, which the driver has no call for: a query object that speaks its part of the protocol. */
export async function copyIn(client: pg.Client, text: string, data: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let failure: Error | undefined
    const query = {
      submit: (connection: CopyConnection): void => connection.query(text),
      handleCopyInResponse: (connection: CopyConnection): void => {
        connection.sendCopyFromChunk(Buffer.from(data))
        connection.endCopyFrom()
      },
      handleCommandComplete: (): void => undefined,
      handleReadyForQuery: (): void => (failure === undefined ? resolve() : reject(failure)),
      handleError: (error: Error): void => {
        failure = error
        reject(error)
      },
    }
    client.query(query as unknown as pg.Submittable)
  })
}
