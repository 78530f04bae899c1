import pg, { DatabaseError, type Pool, type PoolClient } from 'pg'
import { backoffMs, ConnectionError, type Logger, messageOf, Pause, pause, TrunklineError } from '../core/index.ts'
import { guardPool } from '../postgres/index.ts'
import { Breaker } from './breaker.ts'
import type { Lag } from './lag.ts'
import type { NodeConfig } from './options.ts'
import { parseProbe, type Probe, probeStatement } from './probe.ts'
import { afterCut, cut, onParameter } from './wire.ts'

/** How long a server may take to answer a look, in milliseconds, before it counts as unreachable. */
export const probeTimeoutMs = 2_000

/** Looks in a row without an answer after which a standby's connections are cut. */
const unansweredMax = 2

export interface NodeOptions extends NodeConfig {
  /** The server that `url` or `pool` names; the others were given as replicas. It says nothing of its present role. */
  readonly isFirst: boolean
  /** Used instead of a pool of our own, and not ended. */
  readonly pool?: Pool | undefined
  readonly poolSizeMax: number
  readonly acquireTimeoutMs: number
  readonly healthIntervalMs: number
  /** After so many milliseconds without an answer to any look what is in use is cut, whatever the server's role; 0: never. */
  readonly timeoutMs: number
  readonly logger: Logger
  /** It was looked at, with or without success. */
  readonly onLook: (node: Node) => void
}

/** What is known of a connection, and lives as long as it. */
interface Knowledge {
  /** Highest position this very backend has told to have replayed. */
  replayed: { readonly timeline: number; readonly lsn: bigint } | undefined
  /** The timeline that this backend writes; once out of recovery it never changes. */
  written: number | undefined
  /** False: the server said on this connection that it is no standby. Undefined before 14. A pooler tells what it once heard. */
  inHotStandby: boolean | undefined
  /** A pooler is between: each transaction may meet another backend, and another server. What was told holds for no later one. */
  isPooled: boolean
}

const knowledgeOf = new WeakMap<object, Knowledge>()

/** What is known of a connection taken from a node. */
export function knowledge(client: object): Knowledge {
  let known = knowledgeOf.get(client)
  if (known === undefined) {
    known = { replayed: undefined, written: undefined, inHotStandby: undefined, isPooled: false }
    knowledgeOf.set(client, known)
  }
  return known
}

/** The timeline that a connection to a primary writes, as far as it is known. */
export function timelineWritten({
  node,
  client,
}: {
  readonly node: Node
  readonly client: object
}): number | undefined {
  return knowledge(client).written ?? node.probe?.timeline
}

/** `pg_backend_pid()` was answered on this connection: a pooler gives its clients numbers of its own. */
export function hearBackend(client: object, pid: unknown): void {
  const { processID } = client as { readonly processID?: number | null }
  if (typeof processID === 'number' && typeof pid === 'number' && pid !== processID) knowledge(client).isPooled = true
}

/** Since 14 a server says whether it is a standby: at connect, and with the next answer after it was promoted. */
function hearRole(client: pg.Client, onChange: () => void): void {
  onParameter(client, (name, value) => {
    if (name !== 'in_hot_standby') return
    const known = knowledge(client)
    const isStandby = value === 'on'
    if (known.inHotStandby === !isStandby) onChange()
    known.inHotStandby = isStandby
  })
}

/** One server: its connections, and what the last look at it showed. */
export class Node {
  readonly name: string
  readonly weight: number
  readonly isFirst: boolean
  readonly breaker: Breaker = new Breaker()
  readonly #options: NodeOptions
  /** Connections in use, and who hears of their failure. */
  readonly #leases = new Map<PoolClient, (error: Error) => void>()
  readonly #failures = new WeakMap<PoolClient, Error>()
  /** Who works over connections that are not ours. */
  readonly #cutters = new Set<(error: Error) => void>()
  #pool: Pool | undefined
  #guardedPool: Pool | undefined
  #monitor: pg.Client | undefined
  #loop: Promise<void> | undefined
  readonly #pause = new Pause({ isBackground: true })
  #isStopped = true
  /** What it said when it was last reached. */
  probe: Probe | undefined
  /** True while the last look had an answer. */
  isReachable = false
  lastError: Error | undefined
  /** Looks that have ended. */
  looks = 0
  /** Milliseconds that the last look took. */
  latencyMs: number | undefined
  lag: Lag | undefined
  /** Passed over for lag, until it is within half of the limits. */
  isLagging = false
  /** Set when it is none of this cluster's standbys: why. */
  misfit: string | undefined
  /** Transactions and statements that it is working on or that wait for a connection to it. */
  open = 0
  /** No new work: it is being taken away. */
  isLeaving = false

  constructor(options: NodeOptions) {
    this.#options = options
    this.name = options.name
    this.weight = options.weight
    this.isFirst = options.isFirst
  }

  get config(): pg.ClientConfig {
    return this.#options.config
  }

  get pool(): Pool {
    return this.#options.pool ?? (this.#pool ??= this.#createPool({}))
  }

  /** Connections on which nothing can be written by mistake, for reads on a primary whose BEGIN is not ours. */
  get guardedPool(): Pool {
    const given = this.#options.config.options
    const options = `${given === undefined ? '' : `${given} `}-c default_transaction_read_only=on`
    return (this.#guardedPool ??= this.#createPool({ options }))
  }

  start(): void {
    if (!this.#isStopped) return
    this.#isStopped = false
    this.isLeaving = false
    this.looks = 0
    this.#loop = this.#watch()
  }

  /** Resolves when its connections are closed; those in use are waited for, and cut after `patienceMs`. */
  async stop(patienceMs?: number): Promise<void> {
    this.isLeaving = true
    this.#isStopped = true
    this.#pause.wake()
    this.#closeMonitor()
    await this.#loop
    // Those in line for a connection are served first: an ended pool would leave them to their time-out.
    const until = performance.now() + (patienceMs ?? Number.POSITIVE_INFINITY)
    while (this.open > 0 && performance.now() < until) await pause(10)
    const pools = [this.#pool, this.#guardedPool]
    this.#pool = undefined
    this.#guardedPool = undefined
    this.cutLeases(new ConnectionError('The routing was stopped.', { code: 'connection_failed' }))
    for (const pool of pools) await pool?.end()
  }

  /** Looks now and not at the next interval. */
  look(): void {
    this.#pause.wake()
  }

  /** @throws whatever pg throws when no connection can be had in time. */
  async connect(isGuarded = false): Promise<PoolClient> {
    // Not a failure of the server: nobody shall try again here.
    if (this.#isStopped) throw new TrunklineError('The routing was stopped.', { code: 'stopped', retryable: true })
    const { promise, resolve, reject } = Promise.withResolvers<PoolClient>()
    // With a callback, as a promise tells of the client later: the end of a server can come with the same packet.
    const pool = isGuarded ? this.guardedPool : this.pool
    pool.connect((error, client) => {
      if (client === undefined) {
        reject(error ?? new Error('The pool gave no connection.'))
        return
      }
      // Between two statements nobody else listens, and an unheard error would end the process.
      const onError = (failure: Error): void => void this.#failures.set(client, failure)
      client.on('error', onError)
      this.#leases.set(client, onError)
      resolve(client)
    })
    return promise
  }

  /** Gives a connection back; with an error it is closed. */
  release(client: PoolClient, error?: Error): void {
    const onError = this.#leases.get(client)
    this.#leases.delete(client)
    afterCut(client, () => {
      if (onError !== undefined) client.off('error', onError)
      client.release(error ?? this.#failures.get(client))
    })
  }

  /** Nobody shall wait for a server that does not answer: cuts what is in use, so that it fails now. */
  cutLeases(error: Error): void {
    for (const client of this.#leases.keys()) cut(client, error)
    for (const lose of this.#cutters) lose(error)
  }

  /** The outcome of work over a connection that is not ours; fails when we cut our own, as the server does not answer. */
  async whileThere<Result>(work: Promise<Result>): Promise<Result> {
    const lost = Promise.withResolvers<never>()
    this.#cutters.add(lost.reject)
    try {
      return await Promise.race([work, lost.promise])
    } finally {
      this.#cutters.delete(lost.reject)
    }
  }

  async #watch(): Promise<void> {
    let unanswered = 0
    let answeredAt = performance.now()
    for (let failures = 0; !this.#isStopped;) {
      const at = performance.now()
      try {
        this.probe = await this.#ask(at)
        this.latencyMs = performance.now() - at
        // Whatever failed because it could not be reached need not be waited out.
        if (!this.isReachable) this.breaker.succeed()
        this.isReachable = true
        this.lastError = undefined
        failures = 0
        unanswered = 0
        answeredAt = performance.now()
      } catch (error) {
        this.#closeMonitor()
        failures += 1
        unanswered = error instanceof DatabaseError ? 0 : unanswered + 1
        this.#fail(error)
        if (this.#isLost(unanswered, answeredAt)) this.cutLeases(unanswering(this.name))
      }
      this.looks += 1
      if (this.#isStopped) return
      this.#options.onLook(this)
      const { healthIntervalMs } = this.#options
      const waitMs = failures > 0 ? Math.min(backoffMs(failures), 2 * healthIntervalMs) : healthIntervalMs
      await this.#pause.wait(waitMs * (0.9 + 0.2 * Math.random()))
    }
  }

  #fail(error: unknown): void {
    const wasReachable = this.isReachable
    this.isReachable = false
    this.lastError = error instanceof Error ? error : new Error(messageOf(error))
    if (this.#isStopped) return
    if (wasReachable) this.#options.logger.warn(`${this.name} cannot be reached: ${messageOf(error)}`)
  }

  /**
   * One look may meet with an accident of its own connection; a server that refuses to connect is there. On a standby nothing is lost
   * by it: reads that have shown nothing yet go elsewhere. On a primary what is under way may still be answered, but not for ever:
   * connections of the pools have no other end.
   */
  #isLost(unanswered: number, answeredAt: number): boolean {
    if (this.#isStopped || unanswered < unansweredMax) return false
    if (this.probe?.isStandby === true) return true
    const { timeoutMs } = this.#options
    return timeoutMs > 0 && performance.now() - answeredAt >= timeoutMs
  }

  async #ask(at: number): Promise<Probe> {
    const client = this.#monitor ?? (await this.#openMonitor())
    const { rows } = await client.query<unknown[]>({
      text: probeStatement,
      rowMode: 'array',
      query_timeout: probeTimeoutMs,
    } as pg.QueryArrayConfig)
    return parseProbe(rows[0], at)
  }

  async #openMonitor(): Promise<pg.Client> {
    const client = new pg.Client({
      ...this.#options.config,
      application_name: 'trunkline routing',
      connectionTimeoutMillis: probeTimeoutMs,
    })
    this.#monitor = client
    // The next look finds it broken.
    client.on('error', () => {
      if (this.#monitor === client) this.#closeMonitor()
    })
    await client.connect()
    // It must not keep a process alive that has nothing else to do.
    ;(client as unknown as { unref(): void }).unref()
    return client
  }

  #closeMonitor(): void {
    const client = this.#monitor
    this.#monitor = undefined
    if (client !== undefined) cut(client, new Error('the look at the server was ended'))
  }

  #createPool(more: pg.ClientConfig): Pool {
    const { config, poolSizeMax, acquireTimeoutMs, logger } = this.#options
    const onRoleChange = (): void => this.look()
    const pool = new pg.Pool({
      application_name: 'trunkline routed',
      ...config,
      ...more,
      max: poolSizeMax,
      connectionTimeoutMillis: acquireTimeoutMs,
      allowExitOnIdle: true,
      // Hears of its role from the first message on, which comes before pg.Pool shows the client to anybody.
      Client: class extends pg.Client {
        constructor(options?: pg.ClientConfig) {
          super(options)
          hearRole(this, onRoleChange)
        }
      },
    })
    // An idle connection that breaks is replaced when it is needed; unheard, the event would end the process.
    guardPool(pool)
    pool.on('error', (error) => logger.debug(`An idle connection to ${this.name} broke: ${error.message}`))
    return pool
  }
}

function unanswering(name: string): ConnectionError {
  return new ConnectionError(`${name} does not answer.`, { code: 'connection_failed', retryable: true })
}
