import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { text, wholeNumber } from './option-checks.ts'
import { streamName } from './stream.ts'

/** One stream, from afar. */
export interface StreamSummary {
  readonly stream: string
  readonly aggregateType: string
  readonly aggregateId: string
  readonly version: number
  /** When its first event was appended. */
  readonly firstAt: Date
  /** When its last event was appended. */
  readonly lastAt: Date
}

export interface StreamsOptions {
  /** Only streams of aggregates of this type. Default: all. */
  readonly category?: string | undefined
  /** Most streams that are listed. Default: all. */
  readonly limit?: number | undefined
}

/** Streams of one page. */
const pageStreams = 1_000

interface StreamRow extends Record<string, unknown> {
  readonly aggregate_type: string
  readonly aggregate_id: string
  readonly version: string
  readonly first_ms: string
  readonly last_ms: string
}

/** Streams in the order of their names, page by page. */
export async function* listStreams(
  db: Queryable,
  schema: string,
  { category, limit = Number.POSITIVE_INFINITY }: StreamsOptions,
): AsyncIterableIterator<StreamSummary> {
  text('Listing streams', 'category', category)
  wholeNumber('Listing streams', 'limit', limit === Number.POSITIVE_INFINITY ? undefined : limit, 1)
  let last: StreamRow | undefined
  for (let left = limit; left > 0;) {
    const rowsMax = Math.min(left, pageStreams)
    const { rows } = await db.query<StreamRow>(
      `select s.aggregate_type, s.aggregate_id, s.version::text, (date_part('epoch', s.first_at) * 1000)::int8::text as first_ms,
        (date_part('epoch', s.last_at) * 1000)::int8::text as last_ms
       from ${quoteIdentifier(schema)}.event_streams($1::text, $2::text, $3::text, $4::integer) as s`,
      [category ?? null, last?.aggregate_type ?? null, last?.aggregate_id ?? null, rowsMax],
    )
    for (const row of rows) yield summaryOf(row)
    if (rows.length < rowsMax) return
    left -= rows.length
    last = rows.at(-1)
  }
}

function summaryOf(row: StreamRow): StreamSummary {
  const parts = { type: row.aggregate_type, id: row.aggregate_id }
  return {
    stream: streamName(parts),
    aggregateType: parts.type,
    aggregateId: parts.id,
    version: Number(row.version),
    firstAt: new Date(Number(row.first_ms)),
    lastAt: new Date(Number(row.last_ms)),
  }
}
