import { TrunklineError, type TrunklineErrorOptions } from '../core/index.ts'

/** What went wrong with an event. */
export type EventErrorCode =
  | 'unknown_event_type'
  | 'unknown_schema_version'
  | 'invalid_payload'
  | 'upcaster_failed'
  | 'evolve_failed'
  | 'subject_forgotten'
  | 'personal_data_unreadable'

/** The event that an error is about. */
export interface EventPlace {
  readonly type: string
  readonly schemaVersion?: number | undefined
  /** `type-id`, as the store writes it. */
  readonly stream: string
  /** Undefined: it was not stored yet. */
  readonly version?: number | undefined
  readonly id?: string | undefined
}

/** An event that cannot be written, or not be understood; `code` says why. Nothing was written. */
export class EventError extends TrunklineError {
  override readonly name = 'EventError'
  declare readonly code: EventErrorCode
  readonly eventType: string
  readonly stream: string
  /** Of the stored event; undefined for one that was not stored yet. */
  readonly version: number | undefined
  readonly eventId: string | undefined

  constructor(
    place: EventPlace,
    found: string,
    options: Omit<TrunklineErrorOptions, 'code'> & { code: EventErrorCode },
  ) {
    const { type, schemaVersion, stream, version, id } = place
    super(`${describe(place)}: ${found}`, {
      ...options,
      details: { eventType: type, schemaVersion, stream, version, eventId: id, ...options.details },
    })
    this.eventType = type
    this.stream = stream
    this.version = version
    this.eventId = id
  }
}

function describe({ type, schemaVersion, stream, version }: EventPlace): string {
  const event = `Event "${type}"${schemaVersion === undefined ? '' : ` (schema version ${schemaVersion})`}`
  return version === undefined ? `${event} for stream ${stream}` : `${event} of stream ${stream}, version ${version}`
}
