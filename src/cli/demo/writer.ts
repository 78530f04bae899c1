import { type Pool, type PoolClient } from 'pg'
import { withClient } from '../../postgres/index.ts'
import { elapsedMs, nowMs } from './clock.ts'
import { type Job } from './jobs.ts'
import { type Visibility } from './visibility.ts'

/** A transaction that has ended. */
export interface Written {
  readonly job: Job
  readonly revision: number
  readonly rows: number
  /** From sending COMMIT to its acknowledgement. */
  readonly commitMs: number
}

/** Carries out jobs, each in a transaction of its own. */
export class Writer {
  readonly #pool: Pool
  readonly #visibility: Visibility
  readonly #places: number

  constructor(pool: Pool, visibility: Visibility, places: number) {
    this.#pool = pool
    this.#visibility = visibility
    this.#places = places
  }

  async run(job: Job): Promise<Written> {
    // The server is killed meanwhile; what a failure left of a transaction goes with its connection.
    return withClient(this.#pool, (client) => this.#runOn(client, job), { isReusable: () => false })
  }

  async #runOn(client: PoolClient, job: Job): Promise<Written> {
    const revision = this.#visibility.next()
    await client.query('begin')
    const rows = await job.work({ client, revision, places: this.#places })
    if (job.end === 'rollback') {
      await client.query('rollback')
      return { job, revision, rows, commitMs: 0 }
    }
    const started = nowMs()
    this.#visibility.commit(revision, rows, started)
    await client.query('commit')
    return { job, revision, rows, commitMs: elapsedMs(started) }
  }
}
