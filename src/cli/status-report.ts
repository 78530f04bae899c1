import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** How one table is captured. */
export interface TableStatus {
  /** Its present name as SQL writes it; the last known one of a table that is gone. */
  readonly table: string
  readonly topic: string
  readonly captured: boolean
  readonly exists: boolean
  /** It is gone, and there is a table of its name that is not captured. */
  readonly replaced: boolean
  readonly rows: string
  readonly exclude: readonly string[]
  readonly where: string | null
  /** Null: as the installation. */
  readonly wake: string | null
  readonly key: readonly string[]
  /** Triggers that must stand and do not, or are disabled, or other ones. */
  readonly missingTriggers: readonly string[]
}

/** One child of the log. */
export interface SlotStatus {
  readonly slot: number
  /** Takes new rows. */
  readonly current: boolean
  readonly openedAt: Date | null
  readonly closedAt: Date | null
  readonly bytes: string
  /** By the statistics of the server: an estimate. */
  readonly rows: string
  readonly oldestRowAt: Date | null
}

/** A durable reader. */
export interface ReaderStatus {
  readonly name: string
  readonly position: string
  readonly updatedAt: Date
  /** False: it has not moved for longer than the installation's `hold`, and no longer holds rows. */
  readonly alive: boolean
  /** Rows of the log that it has not seen; counted up to `behindRowsMax`. */
  readonly behindRows: number
  /** Age of the oldest of them in seconds; null when there is none. */
  readonly behindSeconds: number | null
}

/** The installation as a whole. */
export interface InstallationStatus {
  readonly schema: string
  readonly migration: string
  readonly channel: string
  readonly wake: string
  readonly retention: string
  readonly hold: string
  readonly logBytes: string
  /** Sessions that sleep until somebody writes. */
  readonly sleepingReaders: number
  readonly openWriters: number
}

/** How far the rows that a reader is behind are counted. */
export const behindRowsMax = 10_000

export async function installationStatus(db: Queryable, schema: string): Promise<InstallationStatus> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<Omit<InstallationStatus, 'schema'>>(
    `select
      (select m.name from ${s}.migration as m order by m.number desc limit 1) as migration,
      i.channel,
      ${s}.wake_mode() as wake,
      i.retention::text as retention,
      i.hold::text as hold,
      (select sum(pg_total_relation_size(c.oid)) from pg_class as c where c.relnamespace = n.oid and c.relname like 'log\\__')::text as "logBytes",
      (select count(distinct l.pid)::integer from pg_locks as l
        where l.locktype = 'advisory' and l.classid = i.lock_class::oid and l.objsubid = 2 and l.granted
          and l.mode = 'ShareLock' and l.database = d.oid) as "sleepingReaders",
      cardinality(${s}.open_writers()) as "openWriters"
    from ${s}.installation as i
    join pg_database as d on d.datname = current_database()
    join pg_namespace as n on n.nspname = $1`,
    [schema],
  )
  return { schema, ...(rows[0] as Omit<InstallationStatus, 'schema'>) }
}

export async function tableStatuses(db: Queryable, schema: string): Promise<TableStatus[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<TableStatus & Record<string, unknown>>(
    `select
      case when c.oid is null then t.name else format('%I.%I', n.nspname, c.relname) end as "table",
      t.id::text as topic,
      t.captured,
      c.oid is not null as "exists",
      c.oid is null and exists (
        select from pg_class as o join pg_namespace as m on m.oid = o.relnamespace
        where o.relkind in ('r', 'p') and m.nspname || '.' || o.relname = t.name
          and not exists (select from ${s}.topic as k where k.relation = o.oid and k.captured)
      ) as "replaced",
      t.rows, t."exclude", t.filter as "where", t.wake,
      t.key_columns as key,
      case when c.oid is null or not t.captured then '{}' else array(
        select m.name from ${s}.missing_triggers(t) as m order by m.name
      ) end as "missingTriggers"
    from ${s}.topic as t
    left join pg_class as c on c.oid = t.relation
    left join pg_namespace as n on n.oid = c.relnamespace
    where t.relation is not null
    order by 1`,
  )
  return rows
}

export async function slotStatuses(db: Queryable, schema: string): Promise<SlotStatus[]> {
  const s = quoteIdentifier(schema)
  // The first row of each topic is found by the index, whatever the log holds.
  const oldest = [0, 1, 2].map(
    (slot) => `when ${slot} then (
      select min(l.created_at) from (select distinct t.id from ${s}.topic as t) as t
      cross join lateral (select l.created_at from ${s}.log_${slot} as l where l.topic = t.id order by l.xid limit 1) as l
    )`,
  )
  const { rows } = await db.query<SlotStatus & Record<string, unknown>>(
    `select
      k.slot::integer as slot,
      k.slot = ${s}.log_slot() as current,
      k.opened_at as "openedAt",
      k.closed_at as "closedAt",
      pg_total_relation_size(c.oid)::text as bytes,
      greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint::text as rows,
      case k.slot ${oldest.join(' ')} end as "oldestRowAt"
    from ${s}.slot as k
    join pg_class as c on c.oid = format('%I.%I', $1::text, 'log_' || k.slot)::regclass
    order by k.slot`,
    [schema],
  )
  return rows
}

export async function readerStatuses(db: Queryable, schema: string): Promise<ReaderStatus[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<ReaderStatus & Record<string, unknown>>(
    `select
      r.name, r.position,
      r.updated_at as "updatedAt",
      r.updated_at > now() - i.hold as alive,
      count(l.created_at)::integer as "behindRows",
      extract(epoch from now() - min(l.created_at))::float8 as "behindSeconds"
    from ${s}.reader as r
    cross join ${s}.installation as i
    left join lateral (
      select l.created_at from (select distinct t.id from ${s}.topic as t) as t
      cross join lateral (
        select l.created_at from ${s}.log as l
        where l.topic = t.id and l.xid >= txid_snapshot_xmax(r.snapshot)
        order by l.xid limit ${behindRowsMax}
      ) as l
      union all
      select l.created_at from (select distinct t.id from ${s}.topic as t) as t
      cross join txid_snapshot_xip(r.snapshot) as x (xid)
      join ${s}.log as l on l.topic = t.id and l.xid = x.xid
      limit ${behindRowsMax}
    ) as l on true
    group by r.name, r.position, r.updated_at, i.hold
    order by r.name`,
  )
  return rows
}
