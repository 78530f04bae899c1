import { quoteIdentifier } from '../../postgres/index.ts'
import { textOfSeconds } from '../table.ts'
import { type Finding, type Patient, warning } from './finding.ts'

/** A transaction that wrote to the log and stays open for longer delays its own rows; in seconds. */
const writerSecondsMax = 60
/** A prepared transaction that waits longer was probably forgotten; in seconds. */
const preparedSecondsMax = 300
/** A snapshot that is older keeps the server from cleaning up; in seconds. */
const snapshotSecondsMax = 3600

/** Who keeps what open for too long. Sessions of other roles show less to those without pg_read_all_stats. */
export async function checkTransactions(patient: Patient): Promise<Finding[]> {
  return [
    ...(await checkWriters(patient)),
    ...(await checkPrepared(patient)),
    ...(await checkSnapshots(patient)),
    ...(await checkHolders(patient)),
  ]
}

async function checkWriters({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ pid: number; name: string; seconds: number }>(
    `select distinct a.pid, coalesce(a.application_name, '') as name, extract(epoch from now() - a.xact_start)::float8 as seconds
    from pg_locks as l
    join pg_stat_activity as a on a.pid = l.pid
    where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.relation in (${logTables(schema)})
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
      and a.xact_start < now() - make_interval(secs => ${writerSecondsMax})`,
  )
  return rows.map(({ pid, name, seconds }) =>
    warning(
      'writer_open',
      `Backend ${pid}${name === '' ? '' : ` (${name})`} wrote to the log ${textOfSeconds(seconds)} ago and has not committed: its rows wait, and the log cannot be emptied under it.`,
      `See what it does (select * from pg_stat_activity where pid = ${pid}); select pg_terminate_backend(${pid}) ends it.`,
    ),
  )
}

async function checkPrepared({ db }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ gid: string; seconds: number }>(
    `select p.gid, extract(epoch from now() - p.prepared)::float8 as seconds from pg_prepared_xacts as p
    where p.database = current_database() and p.prepared < now() - make_interval(secs => ${preparedSecondsMax})`,
  )
  return rows.map(({ gid, seconds }) =>
    warning(
      'prepared_open',
      `Transaction '${gid}' is prepared for ${textOfSeconds(seconds)} and neither committed nor rolled back.`,
      `commit prepared '${gid}' or rollback prepared '${gid}'`,
    ),
  )
}

async function checkSnapshots({ db }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ pid: number; name: string; seconds: number }>(
    `select a.pid, coalesce(a.application_name, '') as name, extract(epoch from now() - a.xact_start)::float8 as seconds
    from pg_stat_activity as a
    where a.backend_xmin is not null and a.xact_start < now() - make_interval(secs => ${snapshotSecondsMax})
    order by age(a.backend_xmin) desc limit 1`,
  )
  return rows.map(({ pid, name, seconds }) =>
    warning(
      'snapshot_old',
      `Backend ${pid}${name === '' ? '' : ` (${name})`} holds a snapshot for ${textOfSeconds(seconds)}: nothing that changed since is cleaned up, in any database.`,
      `See what it does (select * from pg_stat_activity where pid = ${pid}).`,
    ),
  )
}

async function checkHolders({ db }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ slot: string; xids: number }>(
    `select s.slot_name as slot, greatest(age(s.xmin), age(s.catalog_xmin)) as xids from pg_replication_slots as s
    where not s.active and greatest(age(s.xmin), age(s.catalog_xmin)) > 1000000`,
  )
  return rows.map(({ slot, xids }) =>
    warning(
      'replication_slot',
      `Replication slot ${slot} is not in use and ${xids} transactions behind: nothing since is cleaned up.`,
      `select pg_drop_replication_slot('${slot}') if nobody needs it.`,
    ),
  )
}

function logTables(schema: string): string {
  const s = quoteIdentifier(schema).replaceAll("'", "''")
  return [0, 1, 2].map((slot) => `'${s}.log_${slot}'::regclass`).join(', ')
}
