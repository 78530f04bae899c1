import pg, { type Pool, type PoolClient } from 'pg'
import { toTrunklineError } from '../postgres/index.ts'
import type { Reason } from './decision.ts'
import { againElsewhere, isNodeFailure, isWriteRefused } from './errors.ts'
import { type Node, timelineWritten } from './node.ts'
import { endOfRead, positionAfterCommit } from './position.ts'
import { insertedStatement, replayedStatement } from './probe.ts'
import type { Lease, Request } from './request.ts'
import type { Router } from './router.ts'
import type { RoutingSession } from './session.ts'
import { endMsMax } from './transaction.ts'
import { strayStatus, within } from './wire.ts'

export interface RoutedPoolOptions {
  readonly intent: 'read' | 'write'
  readonly router: Router
  readonly session: () => RoutingSession | undefined
  /** Resolves when the servers were looked at. */
  readonly ready: () => Promise<void>
  readonly size: number
}

type ConnectCallback = Parameters<Pool['connect']>[0]

/**
 * A pg.Pool that has no connections of its own: each `connect` and `query` is routed. It *is* a pg.Pool, since query builders ask
 * that (`instanceof`) before they run a transaction on one connection. Ending it ends nothing: the connections belong to the
 * routing.
 *
 * Within a session it does as the transactions do: connections wait for the session's token, and a connection that comes back
 * tells where it was; the next read of the session waits for that answer, and nobody else.
 */
export class RoutedPool extends pg.Pool {
  readonly #options: RoutedPoolOptions

  constructor(options: RoutedPoolOptions) {
    super({ max: options.size, allowExitOnIdle: true })
    this.#options = options
    if (options.intent === 'read') this.query = this.#makeQuery()
  }

  override connect(): Promise<PoolClient>
  override connect(callback: ConnectCallback): void
  override connect(callback?: ConnectCallback): Promise<PoolClient> | void {
    const taken = this.#take()
    if (callback === undefined) return taken
    void handOver(taken, callback)
  }

  override async end(): Promise<void> {
    // The connections belong to the routing: `trunkline.stop()`.
  }

  /** A statement of the read pool, which is opened again elsewhere as a transaction's first one is (T2). */
  #makeQuery(): Pool['query'] {
    const inherited = super.query.bind(this) as (...args: unknown[]) => unknown
    const query = (...args: unknown[]): unknown => {
      const [statement] = args
      const isPlain = typeof statement === 'string' || (typeof statement === 'object' && statement !== null)
      const isSubmittable = typeof statement === 'object' && statement !== null && 'submit' in statement
      // With a callback or a cursor it is as pg has it.
      if (!isPlain || isSubmittable || typeof args.at(-1) === 'function') return inherited(...args)
      return this.#read(statement as string, args[1] as unknown[] | undefined)
    }
    return query as Pool['query']
  }

  async #read(statement: string, values: unknown[] | undefined): Promise<pg.QueryResult> {
    const avoid = new Set<Node>()
    let again: Reason | undefined
    for (let failures = 0; ; failures += 1) {
      const lease = await this.#lease({ avoid, again })
      const client = this.#handOut(lease)
      try {
        const result = await client.query(statement, values)
        client.release()
        return result
      } catch (error) {
        client.release(isNodeFailure(error) ? (error as Error) : undefined)
        again = lease.isPrimary ? undefined : againElsewhere(error, failures)
        if (again === undefined) throw error
        avoid.add(lease.node)
      }
    }
  }

  async #take(): Promise<PoolClient> {
    try {
      return this.#handOut(await this.#lease({}))
    } catch (error) {
      throw toTrunklineError(error, 'Taking a connection')
    }
  }

  async #lease(more: Pick<Request, 'avoid' | 'again'>): Promise<Lease> {
    const { intent, router, session, ready } = this.#options
    await ready()
    return router.take({ intent, session: session(), isGuarded: intent === 'read', ...more })
  }

  /** The connection as pg gives it, whose release gives it back to the routing. */
  #handOut(lease: Lease): PoolClient {
    const current = this.#options.session()
    const { client } = lease
    let isReleased = false
    const release = client.release.bind(client)
    client.release = (error) => {
      if (isReleased) throw new Error('Release called on client which has already been released to the pool.')
      isReleased = true
      // node.release calls the pool's own.
      client.release = release
      // pg.Pool's own query gives null when all is well.
      const told = error instanceof Error ? error : error === true ? new Error('released as broken') : undefined
      // pg.Pool would give an open transaction to the next one.
      const failure = told ?? strayStatus(client)
      // pg.Pool's own query gives the error of its statement: this server is no primary any more.
      if (this.#options.intent === 'write' && isWriteRefused(failure)) lease.node.look()
      // Whether anything was committed over it before it failed, only the primary can tell.
      if (failure !== undefined && this.#options.intent === 'write') current?.pin()
      if (failure !== undefined || current === undefined) lease.release(failure)
      else current.await(this.#note(lease, current))
    }
    return client
  }

  /** Asks where the server is, for the session, and then gives the connection back. */
  async #note(lease: Lease, session: RoutingSession): Promise<void> {
    const { intent } = this.#options
    try {
      const text = lease.isPrimary ? insertedStatement : replayedStatement
      const query = lease.client.query<unknown[]>({ text, rowMode: 'array' } as pg.QueryArrayConfig)
      const { rows } = await within(lease.client, endMsMax, query)
      const position = intent === 'write' ? positionAfterCommit(lease.node, rows[0]) : endOfRead(lease, rows[0])
      if (position === undefined) {
        if (intent === 'write') session.pin(timelineWritten(lease))
      } else if (intent === 'write') session.unpin(position)
      else session.raise(position)
      lease.release(strayStatus(lease.client))
    } catch (error) {
      if (intent === 'write') session.pin(timelineWritten(lease))
      lease.release(error as Error)
    }
  }
}

/** As pg has it: without a client there is nothing to release. */
async function handOver(taken: Promise<PoolClient>, callback: ConnectCallback): Promise<void> {
  let client: PoolClient
  try {
    client = await taken
  } catch (error) {
    callback(error as Error, undefined, () => undefined)
    return
  }
  callback(undefined, client, (error) => client.release(error as Error | undefined))
}
