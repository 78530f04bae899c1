import { parseLsn } from './lsn.ts'

/** What a server says of itself. */
export interface Probe {
  readonly isStandby: boolean
  readonly systemId: string
  /** The timeline it writes, or the highest that a standby is known to have received. */
  readonly timeline: number
  /** What a primary has flushed, what a standby has replayed. */
  readonly lsn: bigint
  /** Of a primary: where its timeline began, as far as it still knows. */
  readonly forkLsn: bigint | undefined
  /** Name of the database that this connection is to. */
  readonly database: string
  /** Tells a server from another one with the same data. */
  readonly startedAt: string
  readonly segmentBytes: bigint
  readonly version: number
  /** By performance.now(), when it was asked. */
  readonly at: number
}

/**
 * A simple query without parameters, that any role may run. The timeline of a primary is in the name of its WAL file: its
 * control file can show the old one for minutes after a promotion. That of a standby is the highest of what its control file
 * and, for a role with pg_read_all_stats, its WAL receiver say; it never shows one that is not followed yet as replayed,
 * since what is replayed is told by the LSN.
 *
 * What a primary has *flushed* is what a standby can have: an open transaction's WAL would be lag for ever on an idle one.
 */
export const probeStatement = `select r.is_standby,
  (select c.system_identifier::text from pg_control_system() as c),
  case when r.is_standby then greatest(
    (select c.timeline_id from pg_control_checkpoint() as c),
    (select c.min_recovery_end_timeline from pg_control_recovery() as c),
    (select w.received_tli from pg_stat_wal_receiver as w)
  )::text else left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end,
  case when r.is_standby then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end::text,
  pg_postmaster_start_time()::text,
  pg_size_bytes(current_setting('wal_segment_size'))::text,
  current_setting('server_version_num'),
  pg_last_wal_replay_lsn()::text,
  current_database()::text
from (select pg_is_in_recovery() as is_standby) as r`

/** Reads the row of `probeStatement` (rowMode array). */
export function parseProbe(row: readonly unknown[] | undefined, at: number): Probe {
  const [isStandby, systemId, timeline, lsn, startedAt, segmentBytes, version, replayed, database] = row as [
    boolean,
    ...string[],
  ]
  return {
    isStandby,
    systemId: String(systemId),
    timeline: isStandby ? Number(timeline) : Number.parseInt(String(timeline), 16),
    // A standby that has replayed nothing yet has no position.
    lsn: parseLsn(lsn ?? '') ?? 0n,
    forkLsn: isStandby ? undefined : parseLsn(replayed ?? ''),
    database: String(database),
    startedAt: String(startedAt),
    segmentBytes: BigInt(segmentBytes ?? 0),
    version: Number(version),
    at,
  }
}

/** What a replica must show before a read with a token, on the connection of that read and before BEGIN. */
export const replayStatement = `select pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
  (select w.received_tli from pg_stat_wal_receiver as w), pg_backend_pid()`

/** Where a replica was when a read ended: at least what the read saw. Null on a primary. */
export const replayedStatement = 'select pg_last_wal_replay_lsn()::text'

/** Taken after COMMIT: before it would be too early, and the flushed one too early with synchronous_commit = off. */
export const insertedStatement =
  'select pg_current_wal_insert_lsn()::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)'

/** What a primary must show on each connection before a read with a token: that it is one, its timeline, where that began. */
export const primaryStatement = `select pg_is_in_recovery(),
  case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end,
  pg_last_wal_replay_lsn()::text, pg_backend_pid()`
