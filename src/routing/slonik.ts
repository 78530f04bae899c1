import { AsyncLocalStorage } from 'node:async_hooks'
import type {
  ClientConfigurationInput,
  CommonQueryMethods,
  DatabasePool,
  DatabasePoolConnection,
  DatabaseTransactionConnection,
  Interceptor,
} from 'slonik'
import { ConnectionError, InvalidInputError, withTimeout } from '../core/index.ts'
import { isWriteRefused } from './errors.ts'
import type { Lane } from './lane.ts'
import { type Node, timelineWritten } from './node.ts'
import { endOfRead, positionAfterCommit } from './position.ts'
import { insertedStatement, primaryStatement, replayedStatement, replayStatement } from './probe.ts'
import { untilReplayed } from './replay.ts'
import type { Lease } from './request.ts'
import { poolExhaustedText, type Router } from './router.ts'
import type { RoutingSession } from './session.ts'
import { driverErrorOf, SlonikScopes, unsafe } from './slonik-scopes.ts'
import type { ReadOptions, WriteOptions } from './transaction-options.ts'
import { endMsMax } from './transaction.ts'

/** Of a transaction over slonik. Its longest time, retries and time-outs are those of slonik's configuration. */
export type SlonikWriteOptions = Pick<WriteOptions, 'isolation' | 'statementTimeoutMs' | 'label' | 'requiresNew'>
export type SlonikReadOptions = SlonikWriteOptions & Pick<ReadOptions, 'after' | 'maxLagMs'>

/** What runs in a transaction; slonik may run it again (`transactionRetryLimit`). */
export type SlonikTransactionFunction<Result> = (transaction: DatabaseTransactionConnection) => Promise<Result>

/** A slonik pool whose read-only work goes to a replica. */
export interface RoutedSlonik extends AsyncDisposable {
  /** Everything on the primary, but what is called inside of `readOnly`. */
  readonly pool: DatabasePool
  /**
   * A transaction on a replica; what writes in it fails. Inside of another transaction of this pool it joins that one. When the
   * replica fails its function is run again elsewhere, twice at most, as slonik does on its part (`transactionRetryLimit`; 0: never).
   *
   * @throws InvalidInputError `invalid_option`, `invalid_token`; ReplicaLagError, ReplicaUnavailableError, RoutingTimeoutError,
   *   NoPrimaryError; else slonik's.
   */
  read<Result>(handler: SlonikTransactionFunction<Result>, options?: SlonikReadOptions): Promise<Result>
  /**
   * A transaction on the primary. Inside of another write of this pool it joins that one.
   *
   * @throws ReadOnlyTransactionError `write_in_read_only` inside of a read or of `readOnly`; TransactionAbortedError when a joined
   *   write failed and its error was caught; InvalidInputError `invalid_option`, RoutingTimeoutError, NoPrimaryError; else slonik's.
   */
  write<Result>(handler: SlonikTransactionFunction<Result>, options?: SlonikWriteOptions): Promise<Result>
  /** All that `run` does with the pool is read-only. */
  readOnly<Result>(run: () => Result): Result
  /** Closes its connections. `trunkline.stop()` does not know of them. */
  end(): Promise<void>
}

export interface SlonikSetup {
  readonly router: Router
  readonly session: () => RoutingSession | undefined
  readonly ready: () => Promise<void>
  readonly primaryUrl: string | undefined
  readonly acquireTimeoutMs: number
}

/** A connection of a slonik pool, held until it is given back. */
interface Held {
  readonly connection: DatabasePoolConnection
  readonly give: (error?: Error) => void
}

/** The methods of a pool that take a connection. */
const methods = [
  'any',
  'anyFirst',
  'exists',
  'many',
  'manyFirst',
  'maybeOne',
  'maybeOneFirst',
  'one',
  'oneFirst',
  'query',
  'record',
  'stream',
  'transaction',
] as const

/**
 * Makes the pool. An interceptor (`beforePoolConnection`) hands each of its connections over to the pool of the server that the
 * router names: one slonik pool a server, and for reads on the primary one whose connections cannot write.
 */
export async function routeSlonik(
  setup: SlonikSetup,
  configuration: ClientConfigurationInput = {},
): Promise<RoutedSlonik> {
  const { primaryUrl } = setup
  if (primaryUrl === undefined) {
    throw new InvalidInputError('slonik needs the URL of the primary.', {
      code: 'missing_url',
      hint: 'Make trunkline with url, or with a pool that was made with connectionString.',
    })
  }
  await setup.ready()
  const { createPool } = await import('slonik')
  const scopes = new SlonikScopes(setup.router, configuration.transactionRetryLimit !== 0)
  const watching: Interceptor = { name: 'trunkline-failures', queryExecutionError: () => scopes.failed() }
  const lane = new SlonikLane(
    {
      // The router itself tries again, and elsewhere.
      connectionRetryLimit: 0,
      connectionTimeout: setup.acquireTimeoutMs,
      ...configuration,
      interceptors: [...(configuration.interceptors ?? []), watching],
    },
    setup.acquireTimeoutMs,
  )
  const use = async <Result>(work: (connection: DatabasePoolConnection) => Promise<Result>): Promise<Result> =>
    runOn({ ...setup, lane, scopes }, work)
  const interceptor: Interceptor = { name: 'trunkline-routing', beforePoolConnection: () => facade(use) }
  // It decides where to, so it comes first; the others see the connection of the pool that it names.
  const pool = await createPool(primaryUrl, { ...configuration, interceptors: [interceptor] })
  const end = async (): Promise<void> => {
    await Promise.all([pool.end(), lane.end()])
  }
  return {
    pool,
    read: async (handler, options) => scopes.transact(pool, { intent: 'read', options }, handler),
    write: async (handler, options) => scopes.transact(pool, { intent: 'write', options }, handler),
    readOnly: (run) => scopes.readOnly(run),
    end,
    [Symbol.asyncDispose]: end,
  }
}

/** What stands for a pool: each call takes its own connection. */
function facade(
  use: <Result>(work: (connection: DatabasePoolConnection) => Promise<Result>) => Promise<Result>,
): DatabasePool {
  type Method = (...args: unknown[]) => Promise<unknown>
  const calls = methods.map((name) => [
    name,
    async (...args: unknown[]) => use(async (connection) => (connection[name] as Method).apply(connection, args)),
  ])
  const connect = async (routine: (connection: DatabasePoolConnection) => Promise<unknown>): Promise<unknown> =>
    use(routine)
  return { ...(Object.fromEntries(calls) as CommonQueryMethods), connect } as unknown as DatabasePool
}

async function runOn<Result>(
  { router, session, lane, scopes }: SlonikSetup & { readonly lane: SlonikLane; readonly scopes: SlonikScopes },
  work: (connection: DatabasePoolConnection) => Promise<Result>,
): Promise<Result> {
  const current = session()
  const request = { ...scopes.request, session: current }
  const { intent } = request
  const lease = await router.takeFrom(lane, request)
  scopes.took(lease)
  const { connection } = lease.client
  try {
    // What a read waits for on a server that does not answer is lost with it; of a write only slonik can tell.
    const result = await (intent === 'read' ? lease.node.whileThere(work(connection)) : work(connection))
    lease.release(current === undefined ? undefined : await note(lease, intent, current))
    return result
  } catch (error) {
    if (intent === 'write') current?.pin()
    if (intent === 'write' && isWriteRefused(driverErrorOf(error))) lease.node.look()
    lease.release(error as Error)
    throw error
  }
}

/** Out of whatever the caller is in. */
const outside = AsyncLocalStorage.snapshot()

/** Asks where the server is after a session's transaction. Never throws: that has committed. Gives what makes the connection unfit. */
async function note(lease: Lease<Held>, intent: 'read' | 'write', session: RoutingSession): Promise<Error | undefined> {
  const asked = rowOf(lease.client.connection, lease.isPrimary ? insertedStatement : replayedStatement)
  let failure: Error | undefined
  const row = await withTimeout(asked, endMsMax, unanswered).catch((error: unknown) => {
    failure = error as Error
    return undefined
  })
  const position = intent === 'write' ? positionAfterCommit(lease.node, row) : endOfRead(lease, row)
  if (position === undefined) {
    if (intent === 'write') session.pin(timelineWritten(lease))
  } else if (intent === 'write') session.unpin(position)
  else session.raise(position)
  return failure
}

/** The columns of one row, in order. */
async function rowOf(connection: DatabasePoolConnection, text: string): Promise<readonly unknown[]> {
  const statement = await unsafe(`select row_to_json(r) as "row" from (${text}) as r (${columnNames(text)})`)
  // Inside of a transaction slonik refuses any other connection; this look is no part of the caller's.
  const row = await outside(async () => connection.oneFirst(statement))
  return Object.values(row as Record<string, unknown>)
}

function columnNames(text: string): string {
  if (text === replayStatement || text === primaryStatement) return 'a, b, c, d'
  return text === insertedStatement ? 'a, b' : 'a'
}

function unanswered(): ConnectionError {
  return new ConnectionError('The server does not answer.', { code: 'connection_failed', retryable: true })
}

/** One slonik pool for each server and kind of work. */
class SlonikLane implements Lane<Held> {
  readonly #configuration: ClientConfigurationInput
  readonly #acquireTimeoutMs: number
  readonly #pools = new Map<Node, Map<boolean, Promise<DatabasePool>>>()

  constructor(configuration: ClientConfigurationInput, acquireTimeoutMs: number) {
    this.#configuration = configuration
    this.#acquireTimeoutMs = acquireTimeoutMs
  }

  max(): number {
    return this.#configuration.maxPoolSize ?? 10
  }

  async connect(node: Node, isGuarded: boolean): Promise<Held> {
    const pool = await this.#poolOf(node, isGuarded)
    const taken = Promise.withResolvers<DatabasePoolConnection>()
    const given = Promise.withResolvers<void>()
    // slonik gives a connection for the time of a function; this one ends when the connection is given back.
    pool
      .connect(async (connection) => {
        taken.resolve(connection)
        await given.promise
      })
      .catch((error: unknown) => taken.reject(driverErrorOf(error)))
    // slonik's line for a connection has no end. Whoever has left it does not keep what comes.
    const exhausted = (): Error => {
      given.resolve()
      return new Error(poolExhaustedText)
    }
    const connection = await withTimeout(taken.promise, this.#acquireTimeoutMs, exhausted)
    return { connection, give: (error) => (error === undefined ? given.resolve() : given.reject(error)) }
  }

  release(_node: Node, client: Held, error?: Error): void {
    client.give(error)
  }

  async verify(client: Held, wanted: Parameters<Lane<Held>['verify']>[1]): ReturnType<Lane<Held>['verify']> {
    // slonik does not tell one connection from the next: only a token is worth a round trip, the role is looked at anyway.
    if (wanted.floor === undefined) return 'reached'
    return untilReplayed(client, async (timeoutMs) => this.ask(client, replayStatement, timeoutMs), wanted)
  }

  async ask({ connection }: Held, statement: string, timeoutMs: number): Promise<readonly unknown[]> {
    return withTimeout(rowOf(connection, statement), timeoutMs, unanswered)
  }

  isStandby(): boolean {
    return false
  }

  async end(): Promise<void> {
    for (const node of this.#pools.keys()) await this.#forget(node)
  }

  async #poolOf(node: Node, isGuarded: boolean): Promise<DatabasePool> {
    for (const each of this.#pools.keys()) if (each.isLeaving && each.open === 0) void this.#forget(each)
    const ofNode = this.#pools.get(node) ?? new Map<boolean, Promise<DatabasePool>>()
    this.#pools.set(node, ofNode)
    let pool = ofNode.get(isGuarded)
    if (pool === undefined) {
      pool = this.#createPool(node, isGuarded)
      ofNode.set(isGuarded, pool)
      // A server that was down is tried again next time.
      pool.catch(() => ofNode.delete(isGuarded))
    }
    return pool
  }

  async #forget(node: Node): Promise<void> {
    const pools = [...(this.#pools.get(node)?.values() ?? [])]
    this.#pools.delete(node)
    for (const pool of pools) await pool.then(async (each) => each.end()).catch(() => undefined)
  }

  async #createPool({ config, name }: Node, isGuarded: boolean): Promise<DatabasePool> {
    const { createPool } = await import('slonik')
    const { connectionString } = config
    if (connectionString === undefined) {
      throw new InvalidInputError(`slonik needs the URL of ${name}.`, { code: 'missing_url' })
    }
    const url = new URL(connectionString)
    if (isGuarded) {
      const given = url.searchParams.get('options')
      const options = `${given === null ? '' : `${given} `}-c default_transaction_read_only=on`
      url.searchParams.set('options', options)
    }
    return createPool(url.href, this.#configuration)
  }
}
