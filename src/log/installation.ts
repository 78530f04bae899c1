import { quoteIdentifier } from '../postgres/index.ts'
import type { Session } from './session.ts'

/** What a reader learns of the log at each connect. */
export interface Installation {
  readonly lockClass: number
  readonly channel: string
  /** What a position must agree with to speak of this log. */
  readonly identity: string
  /**
   * When the server was started, and when it last cast its statistics away, which it does after a crash of one backend: all
   * others are started anew then, and the server is not. As text.
   */
  readonly startedAt: string
  /** Commits are not waited for by default (`synchronous_commit = off`): a crash can take back what was seen. */
  readonly losesCommits: boolean
}

export async function readInstallation(session: Session, schema: string): Promise<Installation> {
  const s = quoteIdentifier(schema)
  const [found] = await session.query(
    `select i.lock_class::text, i.channel, ${s}.log_identity(), concat_ws(' ', pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()),
      current_setting('synchronous_commit') = 'off' from ${s}.installation as i`,
  )
  const [lockClass, channel, identity, startedAt, losesCommits] = (found?.rows[0] ?? []) as [
    string,
    string,
    string,
    string,
    boolean,
  ]
  return { lockClass: Number(lockClass), channel, identity, startedAt, losesCommits }
}
