import type { Change } from '../../log/index.ts'
import type { Format } from '../format.ts'
import type { Delivery } from '../sink.ts'
import { destinationOf, jsonBody, ownHeaders } from './parts.ts'

export interface CloudEventsOptions {
  readonly transport: string | undefined
  /** `structured`: one JSON text with attributes and data. `binary`: attributes are headers, the body is the data alone. */
  readonly mode: 'structured' | 'binary'
  /** The attribute `source`, a URI reference. Default `/trunkline/<topic>`. */
  readonly source: string | undefined
}

/** Attributes as headers, by the protocol bindings; Redis streams have none and are named as Kafka's. */
const prefixes: Readonly<Record<string, string>> = {
  kafka: 'ce_',
  redis: 'ce_',
  amqp: 'cloudEvents:',
  mqtt: '',
}
const otherPrefix = 'ce-'
/** Where a header cannot hold every character: the HTTP binding's rule, which NATS follows. */
const percentEncoded = new Set<string | undefined>(['http', 'nats', undefined])
/** Attributes that an event's header of the same name does not touch. */
const reserved = new Set([
  'specversion',
  'id',
  'source',
  'type',
  'subject',
  'time',
  'datacontenttype',
  'dataschema',
  'data',
  'database64',
  'partitionkey',
])

/** CloudEvents 1.0. `subject` and `partitionkey` are the key; headers whose names allow it are extensions, `traceparent` too. */
export function cloudEventsFormat({ transport, mode, source }: CloudEventsOptions): Format {
  // A line has no headers.
  const isBinary = mode === 'binary' && transport !== 'lines'
  const encodeOne = isBinary ? binary : structured
  return {
    name: isBinary ? 'cloudevents-binary' : 'cloudevents',
    encode: (change) => ({
      ...encodeOne(change, attributesOf(change, source), transport),
      messageId: change.messageId,
      destination: destinationOf(change),
      key: change.key,
      change,
    }),
  }
}

type Encoded = Pick<Delivery, 'headers' | 'contentType' | 'body'>

function structured(change: Change, attributes: Record<string, string>, transport: string | undefined): Encoded {
  return {
    headers: transport === 'lines' ? {} : ownHeaders(change),
    contentType: 'application/cloudevents+json; charset=utf-8',
    body: jsonBody({ ...attributes, datacontenttype: 'application/json', data: dataOf(change) }),
  }
}

function binary(change: Change, attributes: Record<string, string>, transport: string | undefined): Encoded {
  const prefix = prefixes[transport ?? ''] ?? otherPrefix
  const isEncoded = percentEncoded.has(transport)
  const named = Object.entries(attributes).map(([name, value]) => [
    `${prefix}${name}`,
    isEncoded ? percentEncode(value) : value,
  ])
  return {
    // Without a prefix every header is an attribute.
    headers: { ...(prefix !== '' && ownHeaders(change)), ...(Object.fromEntries(named) as Record<string, string>) },
    contentType: 'application/json',
    body: jsonBody(dataOf(change)),
  }
}

function attributesOf(change: Change, source: string | undefined): Record<string, string> {
  const { messageId, topic, key, operation, createdAt } = change
  const type = change.type ?? (operation === null ? topic : `${topic}.${operation}`)
  return {
    ...Object.fromEntries(Object.entries(ownHeaders(change)).filter(isExtension)),
    specversion: '1.0',
    id: messageId,
    source: source ?? `/trunkline/${encodeURIComponent(topic.toWellFormed())}`,
    // The attributes must not be empty.
    type: type === '' ? topic : type,
    time: createdAt,
    ...(key !== null && key !== '' && { subject: key, partitionkey: key }),
  }
}

function isExtension([name]: [string, string]): boolean {
  return /^[a-z0-9]{1,20}$/.test(name) && !reserved.has(name)
}

function dataOf({ operation, table, old, new: row, payload }: Change): unknown {
  return operation === null ? payload : { table, operation, old, new: row }
}

/** Spaces, quotes, percent signs and whatever is not printable ASCII. */
function percentEncode(value: string): string {
  return value.toWellFormed().replaceAll(/[^\x21\x23\x24\x26-\x7e]+/g, (part) => encodeURIComponent(part))
}
