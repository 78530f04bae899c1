import { jsonText, shown } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { FetchPage } from './event-reading.ts'
import { eventsOf } from './event.ts'
import { invalid, isBackward, text, textList, timeText, wholeNumber } from './option-checks.ts'
import { type EventFilter, SettledReader } from './settled-reader.ts'
import { type Stream, type StreamParts, streamParts } from './stream.ts'

export interface ReadAllOptions extends EventFilter {
  /** Read on after this position: of the last event that was read before. Default: from the beginning. */
  readonly after?: string | bigint | undefined
  /** At most so many events. Default: all. */
  readonly limit?: number | undefined
}

/** Which events: all that meet every condition given. */
export interface EventQuery {
  readonly stream?: Stream | undefined
  readonly aggregateType?: string | undefined
  readonly aggregateId?: string | undefined
  readonly types?: readonly string[] | undefined
  /** Appended at or after this time. A Date, or what PostgreSQL reads as one. */
  readonly from?: Date | string | undefined
  /** Appended before this time. */
  readonly to?: Date | string | undefined
  /** Metadata that contains this: `{ userId: '7' }`. A GIN index on `metadata` makes it quick where much is asked. */
  readonly metadata?: Readonly<Record<string, unknown>> | undefined
  /** Default `forward`: the oldest first. */
  readonly direction?: 'forward' | 'backward' | undefined
  /** At most so many events. Default: all. */
  readonly limit?: number | undefined
}

const positionMax = 2n ** 63n - 1n

/** All events in their settled order, up to now. @throws InvalidInputError `invalid_option`. */
export function readAll(schema: string, options: ReadAllOptions): (db: Queryable) => FetchPage {
  const first = positionOf(options.after)
  const limit = wholeNumber('Reading all events', 'limit', options.limit, 1) ?? Number.POSITIVE_INFINITY
  for (const name of ['types', 'categories'] as const) textList('Reading all events', name, options[name])
  return (db) => {
    const reader = new SettledReader(() => db, schema, options)
    let [after, left] = [first, limit]
    let end: bigint | undefined
    return async (rowsMax) => {
      const page = await reader.next(after, Math.min(rowsMax, left))
      // Whoever appends without a pause would keep us reading for ever.
      end ??= page.lastPosition
      after = page.upTo
      // Counting them is making them.
      if (limit !== Number.POSITIVE_INFINITY) left -= page.events.length
      return { read: () => page.events, isLast: !page.hasMore || left === 0 || after >= end }
    }
  }
}

/** Committed events by what is asked of them, in the order of positions. @throws InvalidInputError `invalid_option`. */
export function queryEvents(schema: string, query: EventQuery): (db: Queryable) => FetchPage {
  const doing = 'Querying events'
  const stream = query.stream === undefined ? undefined : streamParts(query.stream)
  const backward = isBackward(doing, query.direction)
  const limit = wholeNumber(doing, 'limit', query.limit, 1) ?? Number.POSITIVE_INFINITY
  textList(doing, 'types', query.types)
  const conditions = [
    stream?.type ?? text(doing, 'aggregateType', query.aggregateType) ?? null,
    stream?.id ?? text(doing, 'aggregateId', query.aggregateId) ?? null,
    query.types ?? null,
    timeText(doing, 'from', query.from),
    timeText(doing, 'to', query.to),
    metadataText(doing, query.metadata),
  ]
  const statement = `select
      ${eventColumns} as events, count(*)::integer as count, max(e.position)::text as high, min(e.position)::text as low
    from (
      select *
      from ${quoteIdentifier(schema)}.event as e
      where e.position ${backward ? '<' : '>'} $7::bigint
        and ($1::text is null or e.aggregate_type = $1::text)
        and ($2::text is null or e.aggregate_id = $2::text)
        and ($3::text[] is null or e.type = any ($3::text[]))
        and ($4::timestamptz is null or e.created_at >= $4::timestamptz)
        and ($5::timestamptz is null or e.created_at < $5::timestamptz)
        and ($6::jsonb is null or e.metadata @> $6::jsonb)
      order by e.position ${backward ? 'desc' : ''}
      limit $8::integer
    ) as e`
  if (isImpossible(stream, query)) return () => async () => Promise.resolve({ read: () => [], isLast: true })
  return (db) => {
    let [from, left] = [backward ? positionMax : 0n, limit]
    return async (rowsMax) => {
      const rows = Math.min(rowsMax, left, queryRowsMax)
      const [row] = (await db.query<QueryRow>(statement, [...conditions, from.toString(), rows])).rows
      const count = row?.count ?? 0
      left -= count
      if (count > 0) from = BigInt((backward ? row?.low : row?.high) ?? 0)
      return { read: () => eventsOf(row?.events), isLast: count < rows || left === 0 }
    }
  }
}

/** All conditions must be met, and no event is of two streams. */
function isImpossible(stream: StreamParts | undefined, { aggregateType, aggregateId }: EventQuery): boolean {
  if (stream === undefined) return false
  return (aggregateType ?? stream.type) !== stream.type || (aggregateId ?? stream.id) !== stream.id
}

/** As `event_page()` writes them; null without any. */
const eventColumns = `case when count(*) > 0 then concat(
        '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'),
        '"],"', encode(string_agg(int8send(e.version), ''), 'hex'), '",', json_agg(e.type),
        ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
        '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
        '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
        '],[', string_agg(e.payload::text, ','), '],', json_agg(e.aggregate_type), ',', json_agg(e.aggregate_id), ']'
      ) end`

/** Events of one page of a query. */
const queryRowsMax = 200

interface QueryRow extends Record<string, unknown> {
  readonly events: string | null
  readonly count: number
  readonly high: string | null
  readonly low: string | null
}

function positionOf(after: unknown): bigint {
  if (after === undefined) return 0n
  if (typeof after === 'bigint' && after >= 0n && after <= positionMax) return after
  if (typeof after === 'string' && /^\d{1,18}$/.test(after)) return BigInt(after)
  throw invalid(`Reading all events: after is ${shown(after)}`, 'the position of an event that was read before')
}

function metadataText(doing: string, metadata: unknown): string | null {
  if (metadata === undefined) return null
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) {
    throw invalid(`${doing}: metadata is ${shown(metadata)}`, 'an object of names and JSON values')
  }
  return jsonText('metadata of a query', metadata)
}
