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
  const encodeOne = isBinary ? binary(transport, source) : structured(transport, source)
  return {
    name: isBinary ? 'cloudevents-binary' : 'cloudevents',
    encode: (change) => ({
      ...encodeOne(change),
      messageId: change.messageId,
      destination: destinationOf(change),
      key: change.key,
      change,
    }),
  }
}

type Encode = (change: Change) => Pick<Delivery, 'headers' | 'contentType' | 'body'>

function structured(transport: string | undefined, source: string | undefined): Encode {
  const style: AttributeStyle = { names: namesWith(''), source, encodeValue: asIs }
  return (change) => {
    const event: Record<string, unknown> = {}
    addAttributes(event, change, style)
    event['datacontenttype'] = 'application/json'
    event['data'] = dataOf(change)
    return {
      headers: transport === 'lines' ? {} : ownHeaders(change),
      contentType: 'application/cloudevents+json; charset=utf-8',
      body: jsonBody(event),
    }
  }
}

function binary(transport: string | undefined, source: string | undefined): Encode {
  const prefix = prefixes[transport ?? ''] ?? otherPrefix
  const encodeValue = percentEncoded.has(transport) ? percentEncode : asIs
  const style: AttributeStyle = { names: namesWith(prefix), source, encodeValue }
  return (change) => {
    // Without a prefix every header is an attribute.
    const headers = prefix === '' ? {} : ownHeaders(change)
    addAttributes(headers, change, style)
    return { headers, contentType: 'application/json', body: jsonBody(dataOf(change)) }
  }
}

/** What the attributes are called: made once, since names that are put together for each event are the dearest part of it. */
interface AttributeNames {
  readonly prefix: string
  readonly specversion: string
  readonly id: string
  readonly source: string
  readonly type: string
  readonly time: string
  readonly subject: string
  readonly partitionkey: string
}

function namesWith(prefix: string): AttributeNames {
  return {
    prefix,
    specversion: `${prefix}specversion`,
    id: `${prefix}id`,
    source: `${prefix}source`,
    type: `${prefix}type`,
    time: `${prefix}time`,
    subject: `${prefix}subject`,
    partitionkey: `${prefix}partitionkey`,
  }
}

interface AttributeStyle {
  readonly names: AttributeNames
  readonly source: string | undefined
  readonly encodeValue: (value: string) => string
}

function addAttributes(target: Record<string, unknown>, change: Change, style: AttributeStyle): void {
  const { names, source, encodeValue } = style
  const { messageId, topic, key, operation, createdAt } = change
  if (change.headers !== null) {
    for (const [name, value] of Object.entries(ownHeaders(change))) {
      if (isExtension(name)) target[names.prefix + name] = encodeValue(value)
    }
  }
  const type = change.type ?? (operation === null ? topic : `${topic}.${operation}`)
  target[names.specversion] = '1.0'
  target[names.id] = messageId
  target[names.source] = encodeValue(source ?? `/trunkline/${encodeURIComponent(topic.toWellFormed())}`)
  // The attributes must not be empty.
  target[names.type] = encodeValue(type === '' ? topic : type)
  target[names.time] = createdAt
  if (key === null || key === '') return
  const subject = encodeValue(key)
  target[names.subject] = subject
  target[names.partitionkey] = subject
}

function asIs(value: string): string {
  return value
}

function isExtension(name: string): boolean {
  return /^[a-z0-9]{1,20}$/.test(name) && !reserved.has(name)
}

function dataOf({ operation, table, old, new: row, payload }: Change): unknown {
  return operation === null ? payload : { table, operation, old, new: row }
}

/** Spaces, quotes, percent signs and whatever is not printable ASCII. */
function percentEncode(value: string): string {
  return value.toWellFormed().replaceAll(/[^\x21\x23\x24\x26-\x7e]+/g, (part) => encodeURIComponent(part))
}
