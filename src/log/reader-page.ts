import { formatSnapshot, type Queryable, quoteIdentifier, type Snapshot } from '../postgres/index.ts'
import type { TypedPlan } from './decode-typed.ts'
import type { TopicSelection } from './reader-topics.ts'

/** What `log_page` is asked for. */
export interface PageRequest {
  readonly from: Snapshot
  readonly to: Snapshot | undefined
  readonly afterId: bigint
  /** Undefined: all. */
  readonly topics: TopicSelection | undefined
  readonly rowsMax: number
  readonly bytesMax: number
}

/** One row of the log as the driver gives it. */
export interface PageRow {
  readonly id: string
  readonly xid: string
  readonly topic: string
  readonly operation: string
  readonly key: string | null
  readonly type: string | null
  readonly payload: string | null
  readonly headers: string | null
  readonly created_at: string
  /** Text of the images; with typed values only that of tables that could not be decoded. */
  readonly old: string | null
  readonly new: string | null
  /** With typed values. */
  readonly has_old?: boolean
  readonly has_new?: boolean
  readonly key_image?: string | null
  /** With typed values: `s…`. */
  readonly [slot: string]: unknown
}

/** What `log_page` tells of the page in its last row. */
export interface PageEnd {
  readonly target: string
  readonly complete: boolean
  readonly level: boolean
  readonly lost: boolean
  readonly identity: string
  readonly topics: Readonly<Record<string, string>> | null
}

export interface Page {
  readonly rows: readonly PageRow[]
  readonly end: PageEnd
}

/** The statement that reads a page; with a plan it decodes images to typed values. One statement: no session state. */
export function pageStatement(schema: string, plan: TypedPlan | undefined): string {
  const source = `${quoteIdentifier(schema)}.log_page($1::text::txid_snapshot, $2::text::txid_snapshot, $3::bigint, ${topicsOf(schema)}, $5::integer, $6::bigint) as p`
  if (plan === undefined) return `select ${envelope('p')}, p.old::text, p.new::text from ${source}`
  const typed = `q.topic in (${[...plan.tables.keys(), 'null'].join(', ')})`
  // OFFSET 0: an image is decoded once and not once for each of its columns.
  return (
    `select ${envelope('q')}, case when ${typed} then null else q.old::text end as old, case when ${typed} then null else q.new::text end as new, ` +
    `q.old is not null as has_old, q.new is not null as has_new, ${plan.key} as key_image${plan.slots} ` +
    `from (select p.*${plan.records} from ${source} offset 0) as q`
  )
}

/**
 * Ids by the snapshot of the page: where it sees changes of a table that was made anew, it sees the table's topic, too. A table
 * that is gone has the name that it was captured under.
 */
function topicsOf(schema: string): string {
  return `case when $4::bigint[] is null or $7::text[] = '{}' then $4::bigint[] else array(
    select unnest($4::bigint[]) union
    select t.id from ${quoteIdentifier(schema)}.topic as t
    left join pg_class as c on c.oid = t.relation left join pg_namespace as n on n.oid = c.relnamespace
    where t.relation is not null and coalesce(n.nspname || '.' || c.relname, t.name) = any ($7::text[])
  ) end`
}

function envelope(alias: string): string {
  return (
    `${alias}.id::text, ${alias}.xid::text, ${alias}.topic::text, ${alias}.operation::text, ${alias}.key, ${alias}.type, ` +
    `${alias}.payload::text, ${alias}.headers::text, to_char(${alias}.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at`
  )
}

export async function fetchPage(queryable: Queryable, statement: string, request: PageRequest): Promise<Page> {
  const { rows } = await queryable.query<PageRow>(statement, [
    formatSnapshot(request.from),
    request.to === undefined ? null : formatSnapshot(request.to),
    String(request.afterId),
    request.topics?.ids ?? null,
    request.rowsMax,
    request.bytesMax,
    request.topics?.tables ?? [],
  ])
  const last = rows.at(-1)
  if (last?.payload === undefined || last.payload === null) throw new Error('log_page() gave no last row.')
  return { rows: rows.slice(0, -1), end: JSON.parse(last.payload) as PageEnd }
}
