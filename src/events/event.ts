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

/** What `event_line()` writes; without the last two, `event_line_short()`. */
type EventLine = readonly [
  position: string,
  id: string,
  version: number,
  type: string,
  schemaVersion: number,
  createdAtMs: number,
  metadata: EventMetadata,
  payload: unknown,
  aggregateType: string,
  aggregateId: string,
]

/** A page of events: one text, parsed once. `stream`: where all of them are of one, and lines do not say. */
export function eventsOf(page: string | null | undefined, stream?: StreamParts): RecordedEvent[] {
  if (page === null || page === undefined) return []
  const lines = JSON.parse(page) as EventLine[]
  const name = stream === undefined ? undefined : streamName(stream)
  return lines.map((line) => ({
    position: line[0],
    id: line[1],
    stream: name ?? streamName({ type: line[8], id: line[9] }),
    aggregateType: stream?.type ?? line[8],
    aggregateId: stream?.id ?? line[9],
    version: line[2],
    type: line[3],
    schemaVersion: line[4],
    payload: line[7],
    metadata: line[6],
    createdAt: new Date(line[5]),
  }))
}
