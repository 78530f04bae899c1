import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** How far what a relay has not delivered is counted. */
export const relayBehindMax = 10_000

/** A relay, as its tables tell. */
export interface RelayStatus {
  readonly name: string
  readonly sink: string
  /** Running processes, as host:pid, and how many slots each owns. */
  readonly processes: readonly { readonly process: string; readonly slots: number }[]
  /** Slots that nobody owns: nothing of their keys is delivered. */
  readonly vacantSlots: number
  /** Rows of its topics that are not behind its checkpoint; counted up to `relayBehindMax`. */
  readonly behindRows: number
  /** Age of the oldest of them in seconds; null when there is none. */
  readonly behindSeconds: number | null
  /** Deliveries that failed or wait behind one that did. */
  readonly waiting: number
  readonly deadLetters: number
}

/** All relays of an installation. */
export async function relayStatuses(db: Queryable, schema: string): Promise<RelayStatus[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<RelayStatus & Record<string, unknown>>(
    `select r.name, r.sink,
       coalesce((
         select json_agg(json_build_object('process', m.process, 'slots', (
           select count(*) from ${s}.relay_slot as o where o.relay = r.name and o.owner = m.owner
         )) order by m.process)
         from ${s}.relay_member as m where m.relay = r.name and m.expires_at > clock_timestamp()
       ), '[]') as processes,
       (select count(*)::integer from ${s}.relay_slot as v where v.relay = r.name and v.owner is null) as "vacantSlots",
       b.count::integer as "behindRows",
       extract(epoch from now() - b.oldest)::float8 as "behindSeconds",
       (select count(*)::integer from ${s}.failed_delivery as d where d.relay = r.name and d.state in ('retry', 'redrive')) as waiting,
       (select count(*)::integer from ${s}.failed_delivery as d where d.relay = r.name and d.state = 'dead') as "deadLetters"
     from ${s}.relay as r
     cross join lateral (
       select l.position, l.snapshot from ${s}.relay_place as l where l.relay = r.name
       order by txid_snapshot_xmax(l.snapshot), (select count(*) from txid_snapshot_xip(l.snapshot)) desc limit 1
     ) as p
     cross join lateral (
       select count(*) as count, min(c.created_at) as oldest from (
         select l.created_at from (select distinct t.id from ${s}.topic as t where r.topics is null or t.id = any (r.topics)) as t
         cross join lateral (
           select x.created_at from ${s}.log as x
           where x.topic = t.id and x.xid >= txid_snapshot_xmax(p.snapshot) and not ${s}.is_covered(p.position, x.id, x.xid)
           order by x.xid limit ${relayBehindMax}
         ) as l
         union all
         select l.created_at from (select distinct t.id from ${s}.topic as t where r.topics is null or t.id = any (r.topics)) as t
         cross join txid_snapshot_xip(p.snapshot) as i (xid)
         join ${s}.log as l on l.topic = t.id and l.xid = i.xid and not ${s}.is_covered(p.position, l.id, l.xid)
         limit ${relayBehindMax}
       ) as c
     ) as b
     order by r.name`,
  )
  return rows
}
