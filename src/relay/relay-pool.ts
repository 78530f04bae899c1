import type { Socket } from 'node:net'
import pg, { type ClientConfig, type QueryResultRow } from 'pg'
import { guardPool, queryPool, withDefaults } from '../postgres/index.ts'
import type { CheckedRelayOptions } from './relay-options.ts'

/** How long to wait for a connection, in milliseconds. */
const connectTimeoutMs = 5_000

/** Longest time one page of the log may take to read, in milliseconds. */
const readTimeoutMs = 60_000

/** One connection for each use, replaced when it breaks, on which each statement has a time limit. */
export class RelayPools {
  readonly read: pg.Pool
  /** Statements that lock rows of one relay never wait for each other on it. */
  readonly keep: pg.Pool
  /** For what renews the lease: it must not wait behind 50 MB that are being stored. */
  readonly beat: pg.Pool

  readonly #clients = new Set<pg.Client>()

  /**
   * @param config of the primary, asked for at each connection.
   * @param onLost a connection was lost.
   */
  constructor(config: () => ClientConfig, options: CheckedRelayOptions, onLost: () => void) {
    const clients = this.#clients
    const make = (use: string, timeoutMs: number): pg.Pool => {
      const pool = new pg.Pool({
        max: 1,
        idleTimeoutMillis: 0,
        connectionTimeoutMillis: connectTimeoutMs,
        Client: class extends pg.Client {
          constructor() {
            super({ ...withDefaults(config()), application_name: `trunkline relay ${use}`, query_timeout: timeoutMs })
            clients.add(this)
            this.once('end', () => clients.delete(this))
          }
        },
      })
      guardPool(pool)
      pool.on('error', (error) => options.logger.debug(`A connection of the relay broke: ${error.message}`))
      pool.on('remove', onLost)
      return pool
    }
    this.read = make('read', readTimeoutMs)
    this.keep = make('keep', Math.max(2_000, options.leaseMs))
    this.beat = make('beat', Math.max(2_000, options.leaseMs))
  }

  /** The primary is another server now: cuts the connections, so that they are made anew. */
  reconnect(): void {
    for (const client of this.#clients) {
      const { connection } = client as unknown as { connection?: { stream?: Socket } }
      connection?.stream?.destroy(new Error('the primary is another server now'))
    }
  }

  async end(): Promise<void> {
    await Promise.all([this.read.end(), this.keep.end(), this.beat.end()])
  }
}

/**
 * Runs one statement. A connection on which the server has refused one is kept: a lost one puts all in doubt that was read (see
 * `RelayRun`), a refused one does not.
 *
 * @param timeoutMs a limit of its own.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
export async function queryRelay<Row extends QueryResultRow>(
  pool: pg.Pool,
  text: string,
  values: unknown[],
  timeoutMs?: number,
): Promise<{ rows: Row[] }> {
  // pg takes a limit for one statement; its types do not know.
  return queryPool<Row>(pool, { text, values, ...(timeoutMs === undefined ? {} : { query_timeout: timeoutMs }) })
}
