import type { Socket } from 'node:net'
import pg, { type ClientConfig } from 'pg'
import type { Logger } from '../core/index.ts'
import { guardPool, withDefaults } from '../postgres/index.ts'

/** Transactions of handlers at once in a process, whatever number of projections it runs. */
const connectionsMax = 8
/** Longest time one statement of the bookkeeping may take, in milliseconds. */
const keepTimeoutMs = 10_000

/** Connections of all projections of a process. Apart from the application's, so that its handlers may use those. */
export class ProjectionPools {
  /** For transactions of handlers. */
  readonly work: pg.Pool
  /** For checkpoints that move alone, and notes: they must not wait behind handlers. */
  readonly keep: pg.Pool
  /** For leases: they must not wait behind anything. */
  readonly beat: pg.Pool
  readonly #clients = new Set<pg.Client>()

  /** @param config of the primary, asked for at each connection. */
  constructor(config: () => ClientConfig, logger: Logger) {
    const clients = this.#clients
    const make = (use: string, max: number, timeoutMs: number | undefined): pg.Pool => {
      const pool = new pg.Pool({
        max,
        allowExitOnIdle: true,
        Client: class extends pg.Client {
          constructor() {
            super({
              ...withDefaults(config()),
              application_name: `trunkline projection ${use}`,
              ...(timeoutMs === undefined ? {} : { query_timeout: timeoutMs }),
            })
            clients.add(this)
            this.once('end', () => clients.delete(this))
          }
        },
      })
      guardPool(pool)
      pool.on('error', (error) => logger.debug(`A connection of the projections broke: ${error.message}`))
      return pool
    }
    this.work = make('work', connectionsMax, undefined)
    this.keep = make('keep', 2, keepTimeoutMs)
    this.beat = make('beat', 1, keepTimeoutMs)
  }

  /** The primary is another server now: cuts the connections, so that they are made anew. */
  reconnect(): void {
    for (const client of this.#clients) {
      const { connection } = client as unknown as { connection?: { stream?: Socket } }
      connection?.stream?.destroy(new Error('the primary is another server now'))
    }
  }

  async end(): Promise<void> {
    await Promise.all([this.work.end(), this.keep.end(), this.beat.end()])
  }
}
