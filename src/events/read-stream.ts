import type { Connection } from '../adapters/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { FetchPage } from './event-reading.ts'
import { eventsOf, type RecordedEvent } from './event.ts'
import { isBackward, timeText, wholeNumber } from './option-checks.ts'
import { streamName, type StreamParts } from './stream.ts'

/** Bytes of payload after which a page ends; it holds one event at least: 16 MiB. */
export const pageBytesMax: number = 16 * 1024 * 1024

const versionMax = Number.MAX_SAFE_INTEGER

export interface ReadStreamOptions {
  /** First version. Default 1. */
  readonly fromVersion?: number | undefined
  /** Last version. Default: the end. */
  readonly toVersion?: number | undefined
  /** The stream as it was then: what had been appended up to and with this time. A Date, or what PostgreSQL reads as one. */
  readonly asOf?: Date | string | undefined
  /** Default `forward`: the oldest first. */
  readonly direction?: 'forward' | 'backward' | undefined
  /** At most so many events. Default: all. */
  readonly limit?: number | undefined
  /** A transaction or connection to read in. */
  readonly tx?: Connection | undefined
}

interface PageRow extends Record<string, unknown> {
  readonly events: string | null
  readonly count: number
  /** Version of the last event in the direction of reading; null without events. */
  readonly edge: string | null
  readonly is_last: boolean
}

/** How a stream is read on a connection. @throws InvalidInputError `invalid_option`. */
export function readStream(
  schema: string,
  stream: StreamParts,
  options: ReadStreamOptions,
): (db: Queryable) => FetchPage {
  const doing = `Reading ${streamName(stream)}`
  const from = wholeNumber(doing, 'fromVersion', options.fromVersion, 0) ?? 1
  const to = wholeNumber(doing, 'toVersion', options.toVersion, 0) ?? versionMax
  const limit = wholeNumber(doing, 'limit', options.limit, 1) ?? Number.POSITIVE_INFINITY
  const asOf = timeText(doing, 'asOf', options.asOf)
  const backward = isBackward(doing, options.direction)
  const text = `select p.events, p.count, p.edge::text, p.is_last from ${quoteIdentifier(schema)}.event_stream_page(
    $1::text, $2::text, $3::bigint, $4::bigint, $5::timestamptz, $6::boolean, $7::integer, $8::bigint) as p`

  return (db) => {
    let [low, high, left] = [from, to, limit]
    return async (rowsMax) => {
      const rows = Math.min(rowsMax, left)
      const values = [stream.type, stream.id, low, high, asOf, backward, rows, pageBytesMax]
      const [row] = (await db.query<PageRow>(text, values)).rows
      const count = row?.count ?? 0
      left -= count
      const edge = row?.edge ?? null
      if (edge !== null && backward) high = Number(edge) - 1
      else if (edge !== null) low = Number(edge) + 1
      const read = (): RecordedEvent[] => {
        const events = eventsOf(row?.events, stream)
        return backward ? events.toReversed() : events
      }
      return { read, isLast: row?.is_last !== false || left === 0 || low > high }
    }
  }
}
