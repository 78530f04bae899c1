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
import type { Node } from './node.ts'
import { endOfRead, positionAfterCommit } from './position.ts'
import { insertedStatement, primaryStatement, replayedStatement, replayStatement } from './probe.ts'
import { untilReplayed } from './replay.ts'
import type { Lease } from './request.ts'
import type { Router } from './router.ts'
import type { RoutingSession } from './session.ts'
import { endMsMax } from './transaction.ts'

/** A slonik pool whose read-only work goes to a replica. */
export interface RoutedSlonik extends AsyncDisposable {
  /** Everything on the primary, but what is called inside of `readOnly`. */
  readonly pool: DatabasePool
  /** A transaction on a replica; what writes in it fails. */
  read<Result>(handler: (transaction: DatabaseTransactionConnection) => Promise<Result>): Promise<Result>
  /** A transaction on the primary. */
  write<Result>(handler: (transaction: DatabaseTransactionConnection) => Promise<Result>): Promise<Result>
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
  const intents = new AsyncLocalStorage<'read'>()
  const lane = new SlonikLane(configuration)
  const use = async <Result>(work: (connection: DatabasePoolConnection) => Promise<Result>): Promise<Result> =>
    runOn({ ...setup, lane }, intents.getStore() ?? 'write', work)
  const interceptor: Interceptor = { name: 'trunkline-routing', beforePoolConnection: () => facade(use) }
  // It decides where to, so it comes first; the others see the connection of the pool that it names.
  const pool = await createPool(primaryUrl, { ...configuration, interceptors: [interceptor] })
  const end = async (): Promise<void> => {
    await Promise.all([pool.end(), lane.end()])
  }
  return {
    pool,
    read: async (handler) => intents.run('read', async () => pool.transaction(handler)),
    write: async (handler) => intents.exit(async () => pool.transaction(handler)),
    readOnly: (run) => intents.run('read', run),
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
  { router, session, lane }: SlonikSetup & { readonly lane: SlonikLane },
  intent: 'read' | 'write',
  work: (connection: DatabasePoolConnection) => Promise<Result>,
): Promise<Result> {
  const current = session()
  const lease = await router.takeFrom(lane, { intent, session: current, isGuarded: intent === 'read' })
  try {
    const result = await work(lease.client.connection)
    lease.release(current === undefined ? undefined : await note(lease, intent, current))
    return result
  } catch (error) {
    if (intent === 'write') current?.pin()
    if (intent === 'write' && isWriteRefused(causeOf(error))) lease.node.look()
    lease.release(error as Error)
    throw error
  }
}

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
    if (intent === 'write') session.pin()
  } else if (intent === 'write') session.unpin(position)
  else session.raise(position)
  return failure
}

/** The columns of one row, in order. */
async function rowOf(connection: DatabasePoolConnection, text: string): Promise<readonly unknown[]> {
  const { sql } = await import('slonik')
  const named = `select row_to_json(r) as "row" from (${text}) as r (${columnNames(text)})`
  const parts = Object.assign([named], { raw: Object.freeze([named]) })
  const row = await connection.oneFirst(sql.unsafe(Object.freeze(parts)))
  return Object.values(row as Record<string, unknown>)
}

function columnNames(text: string): string {
  if (text === replayStatement || text === primaryStatement) return 'a, b, c'
  return text === insertedStatement ? 'a, b' : 'a'
}

function unanswered(): ConnectionError {
  return new ConnectionError('The server does not answer.', { code: 'connection_failed', retryable: true })
}

function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? error.cause : error
}

/** One slonik pool for each server and kind of work. */
class SlonikLane implements Lane<Held> {
  readonly #configuration: ClientConfigurationInput
  readonly #pools = new Map<string, Promise<DatabasePool>>()

  constructor(configuration: ClientConfigurationInput) {
    this.#configuration = configuration
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
      .catch(taken.reject)
    const connection = await taken.promise
    return { connection, give: (error) => (error === undefined ? given.resolve() : given.reject(error)) }
  }

  release(_node: Node, client: Held, error?: Error): void {
    client.give(error)
  }

  async verify(client: Held, wanted: Parameters<Lane<Held>['verify']>[1]): ReturnType<Lane<Held>['verify']> {
    // slonik does not tell one connection from the next: only a token is worth a round trip, the role is looked at anyway.
    if (wanted.floor === undefined) return 'reached'
    return untilReplayed(client, async () => rowOf(client.connection, replayStatement), wanted)
  }

  async ask({ connection }: Held, statement: string, timeoutMs: number): Promise<readonly unknown[]> {
    return withTimeout(rowOf(connection, statement), timeoutMs, unanswered)
  }

  isStandby(): boolean {
    return false
  }

  async end(): Promise<void> {
    const pools = [...this.#pools.values()]
    this.#pools.clear()
    for (const pool of pools) await pool.then(async (each) => each.end()).catch(() => undefined)
  }

  async #poolOf(node: Node, isGuarded: boolean): Promise<DatabasePool> {
    const key = `${isGuarded ? 'read' : 'any'} ${node.name}`
    let pool = this.#pools.get(key)
    if (pool === undefined) {
      pool = this.#createPool(node, isGuarded)
      this.#pools.set(key, pool)
      // A server that was down is tried again next time.
      pool.catch(() => this.#pools.delete(key))
    }
    return pool
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
