import { type Connection, toQueryable } from '../adapters/index.ts'
import { InvalidInputError, jsonText, TrunklineError } from '../core/index.ts'
import { quoteIdentifier, sqlStateOf, toTrunklineError } from '../postgres/index.ts'

/** Something that happened, to be told to others if and only if the transaction commits. */
export interface OutboxEvent {
  /** Where it is routed to. */
  readonly topic: string
  /**
   * What it is about, an order's number say. Events of one topic and key keep the order in which their transactions held
   * the key: a second transaction that emits for it waits for the first to end. Default null: no order.
   */
  readonly key?: string | null | undefined
  /** What happened: `order-created`. Default null. */
  readonly type?: string | null | undefined
  /** Any JSON value, null for none; a JsonText is sent as it is. */
  readonly payload: unknown
  /** Names and texts, for those who route and trace. Default none. */
  readonly headers?: Readonly<Record<string, string>> | null | undefined
}

/**
 * Writes an event to the log, in the caller's transaction. (On a pool it is a transaction of its own.)
 *
 * @returns the event's id in the log.
 * @throws InvalidInputError `invalid_event`, before anything is sent, when the event is not one.
 */
export async function emit(tx: Connection, schema: string, event: OutboxEvent): Promise<string> {
  const values = checkedEvent(event)
  const db = toQueryable(tx, 'emit', 'invalid_event')
  try {
    const { rows } = await db.query<{ id: string }>(
      `select ${quoteIdentifier(schema)}.emit($1::text, $2::text, $3::text, $4::text::jsonb, $5::text::jsonb)::text as id`,
      values,
    )
    return String(rows[0]?.id)
  } catch (error) {
    const state = sqlStateOf(error)
    if (state === '3F000' || state === '42883') throw notInstalled(schema, error)
    throw toTrunklineError(error, `Emitting an event of topic ${event.topic}`)
  }
}

function checkedEvent(event: OutboxEvent): (string | null)[] {
  if (typeof event !== 'object' || (event as object | null) === null) {
    throw invalid('emit needs an event', 'Pass { topic, key, type, payload, headers }.')
  }
  return [
    checkedText('topic', event.topic, 'required'),
    checkedText('key', event.key),
    checkedText('type', event.type),
    jsonText('payload', event.payload),
    event.headers === undefined || event.headers === null ? null : checkedHeaders(event.headers),
  ]
}

function checkedText(name: string, value: unknown, isRequired?: 'required'): string | null {
  if (isRequired !== undefined && (value === undefined || value === null || value === '')) {
    throw invalid(`the event has no ${name}`, `Name the ${name}, for example "order".`)
  }
  if (value === undefined || value === null) return null
  if (typeof value !== 'string')
    throw invalid(`${name} is a ${typeof value}, expected a string`, `Pass String(${name}).`)
  if (value.includes('\0'))
    throw invalid(`${name} contains a zero character`, 'PostgreSQL has no such text; leave it out.')
  // As UTF-8 all of them are the same character, and different keys were one.
  if (!value.isWellFormed())
    throw invalid(
      `${name} is a text with half of a surrogate pair`,
      'UTF-8 has no such text: cut texts between characters.',
    )
  return value
}

function checkedHeaders(headers: Readonly<Record<string, unknown>>): string {
  if (typeof headers !== 'object' || Array.isArray(headers)) {
    throw invalid('headers are no object', 'Pass an object of names and strings.')
  }
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== 'string') {
      throw invalid(
        `header "${name}" is ${value === null ? 'null' : `a ${typeof value}`}, expected a string`,
        'Pass strings.',
      )
    }
  }
  return jsonText('headers', headers)
}

function invalid(found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`Wrong event: ${found}.`, { code: 'invalid_event', hint })
}

function notInstalled(schema: string, cause: unknown): TrunklineError {
  return new TrunklineError(`Emitting an event: schema "${schema}" has no trunkline.`, {
    code: 'schema_missing',
    hint: 'Run: trunkline migrate (or call migrate()) as the owner of the schema.',
    details: { schema },
    cause,
  })
}
