import { streamName, type StreamParts } from './stream.ts'

/** What is known of an event besides what happened. The named ones are trunkline's own; any other JSON value may stand beside them. */
export interface EventMetadata {
  /** One for all that follows from one request. */
  readonly correlationId?: string | undefined
  /** The id of the event or command that led to this one. */
  readonly causationId?: string | undefined
  readonly userId?: string | undefined
  /** W3C Trace Context. */
  readonly traceparent?: string | undefined
  readonly [name: string]: unknown
}

/** Something that happened, to be appended. */
export interface NewEvent<Type extends string = string, Payload = unknown> {
  /** What happened: `item-added`. */
  readonly type: Type
  /** Any JSON value, null for none. */
  readonly payload: Payload
  /** A uuid. Give your own to make an append that may be repeated. Default: a new one. */
  readonly id?: string | undefined
  /** Which form of its type the payload has. Default 1. */
  readonly schemaVersion?: number | undefined
  readonly metadata?: EventMetadata | undefined
}

/** An event as it is stored. */
export interface RecordedEvent<Type extends string = string, Payload = unknown> {
  /** Its place among all events: digits, to be compared as a bigint. */
  readonly position: string
  readonly id: string
  /** `type-id` of its aggregate. */
  readonly stream: string
  readonly aggregateType: string
  readonly aggregateId: string
  /** Its place in its stream: from 1, without holes. */
  readonly version: number
  readonly type: Type
  readonly schemaVersion: number
  readonly payload: Payload
  readonly metadata: EventMetadata
  /** When it was appended, by the server's clock, in whole milliseconds; never before the stream's previous event. */
  readonly createdAt: Date
}

/**
 * The version that a stream must have for an append: a number (0: it must not exist yet), `no-stream` (the same), `stream-exists`
 * (any from 1), or `any`.
 */
export type ExpectedVersion = number | bigint | 'any' | 'no-stream' | 'stream-exists'

/** Where one event of an append is. */
export interface AppendedEvent {
  readonly id: string
  readonly version: number
  readonly position: string
}

export interface AppendResult {
  readonly stream: string
  /** Version of the first event. */
  readonly fromVersion: number
  /** Version of the last event: the stream's version. */
  readonly version: number
  /** Position of the last event. */
  readonly position: string
  readonly events: readonly AppendedEvent[]
  /** True: the same events had been appended before; nothing was written, and this is what the first append gave. */
  readonly isRepeated: boolean
}

/** What `event_page()` writes; where all are of one stream, without the last two. */
type EventColumns = readonly [
  ids: readonly string[],
  positions: readonly string[] | string,
  versions: string | number,
  types: readonly string[],
  schemaVersions: Readonly<Record<string, number>>,
  times: string,
  metadata: readonly (EventMetadata | 0)[],
  payloads: readonly unknown[],
  aggregateTypes: readonly string[],
  aggregateIds: readonly string[],
]

/** Milliseconds from 1970 to 2000, where the server's time begins. */
const yearTwoThousand = Date.UTC(2000)

/**
 * A page of events: one text, column by column, parsed once. `stream`: where all of them are of one, and the text does not say.
 * One loop over all columns: this is where a reader's time goes.
 */
export function eventsOf(page: string | null | undefined, stream?: StreamParts): RecordedEvent[] {
  if (page === null || page === undefined) return []
  const [ids, positions, versions, types, schemaVersions, times, metadata, payloads, aggregateTypes, aggregateIds] =
    JSON.parse(page) as EventColumns
  const name = stream === undefined ? undefined : streamName(stream)
  const timeBytes = Buffer.from(times, 'hex')
  const versionAt = versionsOf(versions)
  const positionAt = positionsOf(positions, ids.length)
  const schemaVersionAt = schemaVersionsOf(schemaVersions)
  const events: RecordedEvent[] = []
  for (const [index, id] of ids.entries()) {
    const position = positionAt(index)
    const aggregateType = stream === undefined ? (aggregateTypes[index] as string) : stream.type
    const aggregateId = stream === undefined ? (aggregateIds[index] as string) : stream.id
    const known = metadata[index] as EventMetadata | 0
    events.push({
      position,
      id,
      stream: name ?? streamName({ type: aggregateType, id: aggregateId }),
      aggregateType,
      aggregateId,
      version: versionAt(index),
      type: types[index] as string,
      schemaVersion: schemaVersionAt(position),
      payload: payloads[index],
      metadata: known === 0 ? {} : known,
      createdAt: new Date(yearTwoThousand + Math.round(numberAt(timeBytes, index) / 1000)),
    })
  }
  return events
}

function positionsOf(column: EventColumns[1], count: number): (index: number) => string {
  if (typeof column !== 'string') return (index) => column[index] as string
  const first = Number(column)
  if (Number.isSafeInteger(first + count)) return (index) => String(first + index)
  const exact = BigInt(column)
  return (index) => String(exact + BigInt(index))
}

function versionsOf(column: EventColumns[2]): (index: number) => number {
  if (typeof column === 'number') return (index) => column + index
  const bytes = Buffer.from(column, 'hex')
  return (index) => numberAt(bytes, index)
}

function schemaVersionsOf(exceptions: EventColumns[4]): (position: string) => number {
  return Object.keys(exceptions).length === 0 ? () => 1 : (position) => exceptions[position] ?? 1
}

/** The n-th of numbers of 8 bytes each. */
function numberAt(bytes: Buffer, index: number): number {
  return bytes.readInt32BE(8 * index) * 2 ** 32 + bytes.readUInt32BE(8 * index + 4)
}
