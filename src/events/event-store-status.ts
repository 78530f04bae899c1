import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** The event store as a whole. */
export interface EventStoreStatus {
  /** How many events, by the statistics of the server: an estimate. */
  readonly events: string
  readonly bytes: string
  /** The last position that was drawn. */
  readonly lastPosition: string
  /** Transactions that have written events and are still open: they hold back what comes after them. */
  readonly openWriters: number
  /** Age of the oldest of them in seconds; null without one. */
  readonly oldestWriterSeconds: number | null
  /** Aggregate types whose events relays can deliver. */
  readonly published: readonly string[]
}

/** @throws what the driver throws. */
export async function eventStoreStatus(db: Queryable, schema: string): Promise<EventStoreStatus> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<EventStoreStatus & Record<string, unknown>>(
    `select
      greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint::text as events,
      pg_total_relation_size(c.oid)::text as bytes,
      (select case when q.is_called then q.last_value else 0 end from ${s}.event_position_seq as q)::text as "lastPosition",
      cardinality(w.writers) as "openWriters",
      (select extract(epoch from clock_timestamp() - min(coalesce(a.xact_start, x.prepared)))::float8
        from pg_locks as l
        left join pg_stat_activity as a on a.pid = l.pid
        left join pg_prepared_xacts as x on '-1/' || x.transaction::text = l.virtualtransaction
        where l.relation = c.oid and l.mode = 'RowExclusiveLock') as "oldestWriterSeconds",
      (select i.published from ${s}.installation as i) as published
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    cross join lateral ${s}.event_writers() as w (writers)
    where n.nspname = $1 and c.relname = 'event'`,
    [schema],
  )
  return rows[0] as EventStoreStatus
}
