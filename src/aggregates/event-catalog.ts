import { InvalidInputError, JsonText, jsonText, messageOf } from '../core/index.ts'
import { type NewEvent, newEventId, type RecordedEvent } from '../events/index.ts'
import { EventError, type EventPlace } from './event-error.ts'
import type { FieldPath } from './field-path.ts'
import { boxField, hasBoxes, type PersonalFields } from './personal-boxes.ts'
import { joinProblems, problemsOf, type StandardSchema } from './standard-schema.ts'
import { checkSubject } from './subject-keys.ts'
import { UpcasterChain } from './upcaster-chain.ts'
import type { AnyUpcaster, UpcastEvent } from './upcaster.ts'

/** Fields of an event's payload that are personal data, and whose. */
export interface PersonalDeclaration<Payload = unknown> {
  /** `name`, `address.street`; what is not there is passed over, a list counts as one field. */
  readonly fields: readonly ([unknown] extends [Payload] ? string : FieldPath<Payload>)[]
  /** The id of the person: it is stored in clear, so let it say nothing by itself. `stream`: name of the event's stream. */
  readonly subject: (payload: Payload, stream: string) => string
}

/** What is known of a type of event. */
export interface EventDefinition<Payload = unknown> {
  /** Checks payloads before they are written; what is written is the payload as it was given. Default: no check. */
  readonly schema?: StandardSchema<Payload> | undefined
  /** The form in which it is written today. Default: where its upcasters end; 1 without any. */
  readonly schemaVersion?: number | undefined
  /** What is sealed with the key of its subject. Default: nothing. */
  readonly personal?: PersonalDeclaration<Payload> | readonly PersonalDeclaration<Payload>[] | undefined
}

/** The types of a union of events, each with what is known of it. */
export type EventDefinitions<Event extends UpcastEvent = UpcastEvent> = {
  readonly [Type in Event['type']]: EventDefinition<Extract<Event, { readonly type: Type }>['payload']>
}

export interface CatalogOptions {
  /** An EventDefinition by type, each of its own payload. */
  readonly events?: object | undefined
  readonly upcasters?: readonly AnyUpcaster[] | undefined
  /** `read`: payloads are checked when they are read, too. Default `append`. */
  readonly validate?: 'append' | 'read' | undefined
}

/** An event that may be written. */
export interface PreparedEvent {
  readonly event: NewEvent & { readonly id: string }
  /** Its payload as it will be read again. */
  readonly plain: unknown
  /** What of it is to be sealed. */
  readonly personal: readonly PersonalFields[]
}

interface Definition {
  readonly schema: StandardSchema | undefined
  readonly personal: readonly {
    readonly fields: readonly string[]
    readonly subject: (payload: unknown, stream: string) => unknown
  }[]
}

/** What is known of the events of one aggregate type. */
export class EventCatalog {
  readonly category: string
  readonly #chain: UpcasterChain
  /** By type; undefined: any type may come. */
  readonly #definitions: ReadonlyMap<string, Definition> | undefined
  readonly isReadChecked: boolean

  /** @throws InvalidInputError `invalid_upcaster`, `invalid_event_definition`. */
  constructor(category: string, { events, upcasters = [], validate = 'append' }: CatalogOptions) {
    this.category = category
    this.#chain = new UpcasterChain(upcasters)
    this.isReadChecked = validate === 'read'
    if (events === undefined) return
    const entries = Object.entries(events as Readonly<Record<string, EventDefinition>>)
    this.#definitions = new Map(entries.map(([type, definition]) => [type, this.#checked(type, definition)]))
  }

  /** Whether events of a type are of this aggregate type; undefined: nobody has said which are. */
  isKnown(type: string): boolean | undefined {
    return this.#definitions?.has(type)
  }

  /** The schema version in which events of a type are written today; 1 where they are out of use. */
  newestVersion(type: string): number {
    return this.#chain.newest(type) ?? 1
  }

  /**
   * Looks at events that are about to be written.
   *
   * @throws EventError `unknown_event_type`, `invalid_payload`. InvalidInputError `invalid_event`, `invalid_subject`.
   */
  async prepare(stream: string, events: readonly NewEvent[]): Promise<PreparedEvent[]> {
    const prepared: PreparedEvent[] = []
    for (const event of events) prepared.push(await this.#prepareEvent(stream, event))
    return prepared
  }

  /** Stored events, with personal data opened, as they are today. @throws EventError `upcaster_failed`. */
  upcast(events: readonly RecordedEvent[]): readonly RecordedEvent[] {
    return this.#chain.isEmpty ? events : events.flatMap((event) => this.#chain.upcast(event))
  }

  /** Looks at what upcasting gave before it is used. @throws EventError `unknown_schema_version`. */
  checkVersion(event: RecordedEvent): void {
    const newest = this.#chain.newest(event.type)
    if (event.schemaVersion === newest || newest === undefined) return
    if (this.#definitions === undefined && !this.#chain.knows(event.type)) return
    throw new EventError(event, `its newest schema version here is ${newest}.`, {
      code: 'unknown_schema_version',
      hint:
        event.schemaVersion > newest
          ? 'A newer release wrote it: run that one, or add what it knows.'
          : `Add an upcaster from schema version ${event.schemaVersion}.`,
    })
  }

  /**
   * With `validate: 'read'`: checks payloads that were read. `excused`: ids of events of which something is forgotten; the
   * placeholder is no value of its field's type.
   *
   * @throws EventError `invalid_payload`.
   */
  async checkPayloads(events: readonly RecordedEvent[], excused: ReadonlySet<string>): Promise<void> {
    if (!this.isReadChecked) return
    for (const event of events) {
      const definition = this.#definitions?.get(event.type)
      if (definition !== undefined && !excused.has(event.id)) await checkPayload(definition, event.payload, event)
    }
  }

  async #prepareEvent(stream: string, event: NewEvent): Promise<PreparedEvent> {
    // What is no event at all the store refuses, with a message of its own.
    if (!isEvent(event)) return { event: withId(event), plain: undefined, personal: [] }
    const { type } = event
    const newest = this.#chain.newest(type)
    const isOld = this.#chain.knows(type) && (event.schemaVersion ?? newest) !== newest
    this.#refuseUnknown(stream, type, isOld)
    const schemaVersion = event.schemaVersion ?? newest
    if (schemaVersion === undefined) {
      throw new EventError({ type, stream }, 'it is out of use: its upcasters lead to other types.', {
        code: 'unknown_event_type',
        hint: 'Write what they lead to.',
      })
    }
    const plain = jsonCopy(`${stream}, event "${type}": payload`, event.payload)
    refuseBoxes(stream, type, plain)
    const prepared = withId({ ...event, schemaVersion })
    const definition = this.#definitions?.get(type)
    if (definition !== undefined && !isOld) {
      await checkPayload(definition, plain, { type, stream, schemaVersion, id: prepared.id })
    }
    return { event: prepared, plain, personal: personalOf(definition, stream, type, plain) }
  }

  #refuseUnknown(stream: string, type: string, isOld: boolean): void {
    if (this.#definitions === undefined || this.#definitions.has(type) || isOld) return
    throw new EventError({ type, stream }, `${this.category} has no such event.`, {
      code: 'unknown_event_type',
      hint: `Known: ${[...this.#definitions.keys()].join(', ')}. Add it to the events of the aggregate, or mend its name.`,
    })
  }

  #checked(type: string, { schema, schemaVersion, personal = [] }: EventDefinition): Definition {
    const newest = this.#chain.newest(type)
    const wrong = (found: string, hint: string): InvalidInputError =>
      new InvalidInputError(`Wrong definition of event "${type}" of ${this.category}: ${found}.`, {
        code: 'invalid_event_definition',
        hint,
      })
    if (schemaVersion !== undefined && schemaVersion !== newest) {
      throw wrong(
        `schemaVersion is ${schemaVersion}, and its upcasters end at ${newest ?? 'other types'}`,
        'Add an upcaster from each older version, or mend the number.',
      )
    }
    if (schema !== undefined && typeof (schema as Partial<StandardSchema>)['~standard']?.validate !== 'function') {
      throw wrong('schema is no Standard Schema', 'Pass one of Zod, Valibot, ArkType or any other that has ~standard.')
    }
    const declared = (Array.isArray(personal) ? personal : [personal]) as readonly PersonalDeclaration[]
    for (const { fields, subject } of declared) {
      if (
        Array.isArray(fields) &&
        fields.every((field) => typeof field === 'string' && field !== '') &&
        typeof subject === 'function'
      )
        continue
      throw wrong('personal is not understood', 'Pass { fields: ["name"], subject: (payload) => payload.customerId }.')
    }
    return { schema, personal: declared }
  }
}

/** @throws EventError: the payload has the field that only `sealPayload` writes. */
export function refuseBoxes(stream: string, type: string, payload: unknown): void {
  if (!hasBoxes(payload)) return
  throw new EventError({ type, stream }, `its payload has a field ${boxField}, which is trunkline's own.`, {
    code: 'invalid_payload',
    hint: 'Give the field another name.',
  })
}

function personalOf(
  definition: Definition | undefined,
  stream: string,
  type: string,
  payload: unknown,
): readonly PersonalFields[] {
  if (definition === undefined || typeof payload !== 'object' || payload === null) return []
  return definition.personal.map(({ fields, subject }) => ({
    subject: checkSubject(subjectOf(subject, { stream, type, payload }), `Event "${type}" for stream ${stream}`),
    paths: fields,
  }))
}

function subjectOf(
  subject: Definition['personal'][number]['subject'],
  { stream, type, payload }: { readonly stream: string; readonly type: string; readonly payload: unknown },
): unknown {
  try {
    return subject(payload, stream)
  } catch (error) {
    throw new EventError({ type, stream }, `the subject of its personal data cannot be told: ${messageOf(error)}.`, {
      code: 'invalid_payload',
      hint: 'Mend the payload, or `subject` in the definition of the event.',
      cause: error,
    })
  }
}

function isEvent(event: unknown): event is NewEvent {
  return typeof event === 'object' && event !== null && 'type' in event && typeof event.type === 'string'
}

/** What the payload will be when it is read again. */
function jsonCopy(name: string, payload: unknown): unknown {
  return JSON.parse(payload instanceof JsonText ? payload.text : jsonText(name, payload))
}

function withId<Event extends NewEvent>(event: Event): Event & { readonly id: string } {
  return { ...event, id: typeof event?.id === 'string' ? event.id.toLowerCase() : newEventId() }
}

async function checkPayload(definition: Definition, payload: unknown, place: EventPlace): Promise<void> {
  const { schema, personal } = definition
  if (schema === undefined) return
  const secret = personal.flatMap(({ fields }) => fields)
  const problems = await problemsOf(schema, payload, secret).catch((error: unknown) => {
    // What it says may be of the payload.
    const why = secret.length === 0 ? `: ${messageOf(error)}` : ' (personal data is not told)'
    throw new EventError(place, `its schema failed${why}.`, {
      code: 'invalid_payload',
      hint: 'A schema tells of a wrong payload by issues: mend it.',
      cause: secret.length === 0 ? error : undefined,
    })
  })
  if (problems === undefined || problems.length === 0) return
  throw new EventError(place, `its payload is not as its schema wants it: ${joinProblems(problems)}.`, {
    code: 'invalid_payload',
    hint: 'Mend the payload, or the schema.',
    details: { problems },
  })
}
