import { InvalidInputError, jsonText, shown } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { newEventId } from './event-id.ts'
import type { AppendResult, EventMetadata, ExpectedVersion, NewEvent, RecordedEvent } from './event.ts'
import { streamName, type StreamParts } from './stream.ts'

/** Most events of one append. */
export const appendEventsMax = 10_000

/** What goes into the metadata of every event of an append; what an event has of its own goes before it. */
export interface AppendContext {
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly userId?: string | undefined
  readonly traceparent?: string | undefined
  readonly metadata?: EventMetadata | undefined
}

/** An event that is ready to be sent. */
interface PreparedEvent {
  readonly id: string
  readonly type: string
  readonly schemaVersion: number
  readonly payload: unknown
  readonly metadata: EventMetadata
}

/** Events that were found to be good, and the texts that are sent. */
export interface PreparedAppend {
  readonly stream: StreamParts
  readonly name: string
  readonly expected: ExpectedVersion
  readonly events: readonly PreparedEvent[]
  /** Payload of each event as JSON. */
  readonly payloads: readonly string[]
  /** Metadata of each event as JSON. */
  readonly metadata: readonly string[]
  /** Length of all of these. */
  readonly characters: number
}

interface AppendRow extends Record<string, unknown> {
  readonly first_version: string
  readonly positions: string
  readonly created_ms: string
  readonly is_repeated: boolean
}

/** What an append gave. */
export interface Appended {
  readonly result: AppendResult
  readonly recorded: () => RecordedEvent[]
}

/** Checks events and makes the text to send. @throws InvalidInputError that names stream and event; nothing is sent. */
export function prepareAppend(
  stream: StreamParts,
  expected: ExpectedVersion,
  events: readonly NewEvent[],
  context: AppendContext,
): PreparedAppend {
  const name = streamName(stream)
  const common = metadataOf(name, context)
  const ids = new Set<string>()
  const prepared: PreparedEvent[] = []
  const payloads: string[] = []
  const metadata: string[] = []
  let characters = 0
  for (const [index, event] of events.entries()) {
    const label = `${name}, event ${index + 1}`
    const ready = prepareEvent(label, event, common)
    if (ids.has(ready.id)) {
      throw wrong(`${label} (${ready.type}) has the id of another`, 'Give each event an id of its own, or none.')
    }
    ids.add(ready.id)
    prepared.push(ready)
    const payload = jsonText(`${label} (${ready.type}): payload`, ready.payload)
    const known =
      Object.keys(ready.metadata).length === 0
        ? noMetadata
        : jsonText(`${label} (${ready.type}): metadata`, ready.metadata)
    payloads.push(payload)
    metadata.push(known)
    characters += payload.length + known.length
  }
  return { stream, name, expected, events: prepared, payloads, metadata, characters }
}

/** Sends an append. */
export async function sendAppend(db: Queryable, schema: string, append: PreparedAppend): Promise<Appended> {
  const { rows } = await db.query<AppendRow>(
    `select a.first_version::text, a.positions, (date_part('epoch', a.created_at) * 1000)::int8::text as created_ms, a.is_repeated
     from ${quoteIdentifier(schema)}.append_events($1::text, $2::text, $3::bigint, $4::uuid[], $5::text[], $6::integer[], $7::json, $8::json) as a`,
    [append.stream.type, append.stream.id, expectedNumber(append.expected), ...columnsOf([append])],
  )
  return appended(append, rows[0] as AppendRow)
}

interface GroupRow extends Record<string, unknown> {
  readonly positions: string
  readonly versions: string
}

/**
 * Sends appends in one transaction, all or none: to a stream twice only if the later one expects no version of its own. In the order of
 * their streams, so that two groups do not wait for each other. An error does not say which append it is about.
 * The statement is one, and its own transaction: also through a pooler.
 */
export async function sendAppends(
  db: Queryable,
  schema: string,
  appends: readonly PreparedAppend[],
  lockTimeoutMs: number,
): Promise<readonly AppendResult[]> {
  const inOrder = [...appends.entries()].toSorted(([, one], [, other]) => compare(one.name, other.name))
  const streams: PreparedAppend[] = []
  const units: number[] = []
  const places: number[] = []
  let place = 0
  for (const [, append] of inOrder) {
    if (append.name !== streams.at(-1)?.name) {
      streams.push(append)
      place = 0
    }
    for (let event = 0; event < append.events.length; event += 1) {
      units.push(streams.length)
      places.push((place += 1))
    }
  }
  const { rows } = await db.query<GroupRow>(
    `select g.positions, g.versions
     from ${quoteIdentifier(schema)}.append_group($1::text[], $2::text[], $3::bigint[], $4::boolean, $5::integer[], $6::integer[],
       $7::uuid[], $8::text[], $9::integer[], $10::json, $11::json, $12::integer) as g`,
    [
      textArray(streams.map(({ stream }) => stream.type)),
      textArray(streams.map(({ stream }) => stream.id)),
      `{${streams.map(({ expected }) => expectedNumber(expected)).join(',')}}`,
      streams.some(({ expected }) => expected === 'any' || expected === 'stream-exists'),
      `{${units.join(',')}}`,
      `{${places.join(',')}}`,
      ...columnsOf(inOrder.map(([, append]) => append)),
      lockTimeoutMs,
    ],
  )
  const positions = rows[0]?.positions.split(',') ?? []
  const versions = rows[0]?.versions.split(',') ?? []
  const results: AppendResult[] = []
  let next = 0
  for (const [index, append] of inOrder) {
    results[index] = resultOf(append, Number(versions[next]), positions.slice(next, next + append.events.length), false)
    next += append.events.length
  }
  return results
}

function compare(one: string, other: string): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}

/** Checks that an expected version is one. */
export function checkExpected(stream: string, expected: unknown): ExpectedVersion {
  if (expected === 'any' || expected === 'no-stream' || expected === 'stream-exists') return expected
  const isNumber = typeof expected === 'number' ? Number.isSafeInteger(expected) : typeof expected === 'bigint'
  if (isNumber && (expected as number | bigint) >= 0 && (expected as number | bigint) < 2n ** 63n) {
    return expected as number | bigint
  }
  throw new InvalidInputError(`Appending to ${stream}: the expected version is ${shown(expected)}.`, {
    code: 'invalid_expected_version',
    hint: "Expected a whole number from 0 on, 'any', 'no-stream' or 'stream-exists'.",
    details: { stream },
  })
}

function expectedNumber(expected: ExpectedVersion): string {
  if (expected === 'any') return '-1'
  if (expected === 'stream-exists') return '-2'
  return expected === 'no-stream' ? '0' : expected.toString()
}

function prepareEvent(label: string, event: NewEvent, common: EventMetadata | undefined): PreparedEvent {
  if (!isObject(event)) throw wrong(`${label} is no object`, 'Pass { type, payload }.')
  const { type, id, schemaVersion = 1, payload, metadata } = event
  if (typeof type !== 'string' || type === '') {
    throw wrong(`${label} has no type`, 'Name what happened, for example "created".')
  }
  const problem = problemOf(event)
  if (problem !== undefined) throw wrong(`${label} (${type}) has ${problem.found}`, problem.hint)
  return {
    id: id?.toLowerCase() ?? newEventId(),
    type,
    schemaVersion,
    payload,
    metadata: common === undefined ? (metadata ?? {}) : { ...common, ...metadata },
  }
}

function problemOf({ type, id, schemaVersion = 1, metadata }: NewEvent): { found: string; hint: string } | undefined {
  if (type.includes('\0') || !type.isWellFormed()) {
    return {
      found: 'a type that PostgreSQL cannot hold',
      hint: 'Leave out zero characters and halves of surrogate pairs.',
    }
  }
  if (!Number.isSafeInteger(schemaVersion) || schemaVersion < 1 || schemaVersion >= 2 ** 31) {
    return { found: `schemaVersion ${shown(schemaVersion)}`, hint: 'Expected a whole number from 1 on.' }
  }
  if (id !== undefined && !isUuid(id)) {
    return { found: `the id ${shown(id)}`, hint: 'Expected a uuid, for example of crypto.randomUUID().' }
  }
  if (metadata !== undefined && !isObject(metadata)) {
    return { found: 'metadata that is no object', hint: 'Pass an object of names and JSON values.' }
  }
  return undefined
}

const noMetadata = '{}'

/** Events as append_events() takes them: ids, types, schema versions, payloads and metadata; null where all are the default. */
function columnsOf(appends: readonly PreparedAppend[]): readonly (string | null)[] {
  const events = appends.flatMap((append) => append.events)
  const metadata = appends.flatMap((append) => append.metadata)
  return [
    `{${events.map(({ id }) => id).join(',')}}`,
    textArray(events.map(({ type }) => type)),
    events.every(({ schemaVersion }) => schemaVersion === 1)
      ? null
      : `{${events.map(({ schemaVersion }) => schemaVersion).join(',')}}`,
    `[${appends.map(({ payloads }) => payloads.join(',')).join(',')}]`,
    metadata.every((text) => text === noMetadata) ? null : `[${metadata.join(',')}]`,
  ]
}

const neededQuotes = /["\\]/g

/** Texts as an array of PostgreSQL. */
function textArray(texts: readonly string[]): string {
  return `{${texts.map((text) => `"${text.replace(neededQuotes, String.raw`\$&`)}"`).join(',')}}`
}

const contextNames = ['correlationId', 'causationId', 'userId', 'traceparent'] as const

function metadataOf(stream: string, context: AppendContext): EventMetadata | undefined {
  const { metadata } = context
  if (metadata !== undefined && !isObject(metadata)) {
    throw wrong(`the metadata of an append to ${stream} is no object`, 'Pass an object of names and JSON values.')
  }
  const given = contextNames.filter((name) => context[name] !== undefined)
  if (given.length === 0) return metadata
  const strange = given.find((name) => typeof context[name] !== 'string')
  if (strange !== undefined) throw wrong(`${strange} of an append to ${stream} is no text`, 'Pass a string.')
  return { ...metadata, ...Object.fromEntries(given.map((name) => [name, context[name]])) }
}

function appended(append: PreparedAppend, row: AppendRow): Appended {
  const { stream, name, events } = append
  const first = Number(row.first_version)
  const positions = row.positions.split(',')
  return {
    result: resultOf(append, first, positions, row.is_repeated),
    recorded: () =>
      events.map(({ id, type, schemaVersion, payload, metadata }, index) => ({
        position: positions[index] ?? '',
        id,
        stream: name,
        aggregateType: stream.type,
        aggregateId: stream.id,
        version: first + index,
        type,
        schemaVersion,
        payload,
        metadata,
        createdAt: new Date(Number(row.created_ms)),
      })),
  }
}

function resultOf(
  { name, events }: PreparedAppend,
  first: number,
  positions: readonly string[],
  isRepeated: boolean,
): AppendResult {
  return {
    stream: name,
    fromVersion: first,
    version: first + events.length - 1,
    position: positions.at(-1) ?? '',
    events: events.map(({ id }, index) => ({ id, version: first + index, position: positions[index] ?? '' })),
    isRepeated,
  }
}

const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i

function isUuid(id: unknown): boolean {
  return typeof id === 'string' && uuid.test(id)
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function wrong(found: string, hint?: string): InvalidInputError {
  return new InvalidInputError(`Wrong event: ${found}.`, { code: 'invalid_event', hint })
}
