import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/testing/embedded-postgres.ts'
import { eventually } from './eventually.ts'
import type { OwnCluster } from './own-cluster.ts'
import type { TestServer } from './server.ts'

/** A streaming replica of an own cluster. */
export interface Standby extends AsyncDisposable {
  readonly postgres: EmbeddedPostgres
  /** For URLs of the primary's databases on the standby. */
  readonly server: TestServer
  /** Stops applying WAL, for a lag that lasts. Resolves when nothing is applied any more. */
  pauseReplay(): Promise<void>
  resumeReplay(): Promise<void>
  /** Resolves when all that the primary had written before the call is applied here. */
  untilCaughtUp(): Promise<void>
  /** Makes it a primary, on a new timeline. */
  promote(): Promise<void>
  dispose(): Promise<void>
}

/**
 * Starts a replica of a cluster, which is restarted for it (its connections are lost). Streaming is asynchronous.
 *
 * @param settings for example `{ recovery_min_apply_delay: '2s' }`.
 */
export async function createStandby(
  primary: OwnCluster,
  settings: Readonly<Record<string, string>> = {},
): Promise<Standby> {
  const { version } = primary.postgres
  const postgres = await startEmbeddedPostgres({ version, settings, standbyOf: primary.postgres })
  const standby = new StreamingStandby(primary.postgres, postgres)
  await eventually(() => standby.isStreaming(), { what: 'the standby streams from its primary' })
  return standby
}

class StreamingStandby implements Standby {
  readonly postgres: EmbeddedPostgres
  readonly server: TestServer
  readonly #primary: EmbeddedPostgres

  constructor(primary: EmbeddedPostgres, postgres: EmbeddedPostgres) {
    this.#primary = primary
    this.postgres = postgres
    this.server = { version: postgres.version, url: postgres.url }
  }

  async isStreaming(): Promise<boolean> {
    return isTrue(this.postgres.url, "select exists (select from pg_stat_wal_receiver where status = 'streaming')")
  }

  /** A pause is first requested, then reached; only PostgreSQL 14 and newer tell the two apart. */
  async pauseReplay(): Promise<void> {
    await ask(this.postgres.url, 'select pg_wal_replay_pause()')
    const reached =
      Number(this.postgres.version) >= 14 ? "pg_get_wal_replay_pause_state() = 'paused'" : 'pg_is_wal_replay_paused()'
    await eventually(() => isTrue(this.postgres.url, `select ${reached}`), { what: 'replay is paused' })
  }

  async resumeReplay(): Promise<void> {
    await ask(this.postgres.url, 'select pg_wal_replay_resume()')
  }

  async untilCaughtUp(): Promise<void> {
    const position = await ask(this.#primary.url, 'select pg_current_wal_lsn()::text')
    const question = 'select pg_last_wal_replay_lsn() >= $1::pg_lsn'
    await eventually(() => isTrue(this.postgres.url, question, [position]), { what: `${String(position)} is applied` })
  }

  async promote(): Promise<void> {
    await ask(this.postgres.url, 'select pg_promote(true)')
    await eventually(() => isTrue(this.postgres.url, 'select not pg_is_in_recovery()'), { what: 'it is a primary' })
  }

  dispose(): Promise<void> {
    return this.postgres.dispose()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

async function isTrue(url: string, question: string, values: readonly unknown[] = []): Promise<boolean> {
  return (await ask(url, question, values)) === true
}

/** The first column of the first row. */
async function ask(url: string, question: string, values: readonly unknown[] = []): Promise<unknown> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<[unknown]>({ text: question, values: [...values], rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}
