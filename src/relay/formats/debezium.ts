import { type Change, type Operation, tableOf } from '../../log/index.ts'
import type { Format } from '../format.ts'
import type { Delivery } from '../sink.ts'
import { debeziumRow } from './debezium-values.ts'
import { destinationOf, jsonBody, ownHeaders } from './parts.ts'

export interface DebeziumOptions {
  readonly transport: string | undefined
  /** Of topics of captured tables, and `source.name`: `<prefix>.<schema>.<table>`. Default `trunkline`. */
  readonly topicPrefix: string | undefined
  /** `source.db`. Default: empty. */
  readonly database: string | undefined
}

const ops: Readonly<Partial<Record<Operation, string>>> = { insert: 'c', update: 'u', delete: 'd', truncate: 't' }

/**
 * What Debezium writes, with the JSON converter and without schemas, for consumers made for it. Events are as its outbox event
 * router has them: the payload alone, key, and header `id`. Captured changes are its change envelopes, keyed by an object of
 * the key columns. A delete is one envelope, and no tombstone follows (`tombstones.on.delete=false`).
 */
export function debeziumFormat({ transport, topicPrefix = 'trunkline', database = '' }: DebeziumOptions): Format {
  const encodeOne = (change: Change): Delivery | undefined =>
    change.operation === null ? outboxEvent(change) : changeEvent(change, topicPrefix, database)
  return {
    name: 'debezium',
    encode: (change) => {
      const delivery = encodeOne(change)
      return delivery === undefined || transport !== 'lines' ? delivery : inLine(delivery)
    },
  }
}

function outboxEvent(change: Change): Delivery {
  const { messageId, key, type, payload } = change
  return {
    messageId,
    destination: destinationOf(change),
    key,
    headers: { ...ownHeaders(change), ...(type !== null && { eventType: type }), id: messageId },
    contentType: 'application/json',
    body: jsonBody(payload),
    change,
  }
}

function changeEvent(change: Change, topicPrefix: string, database: string): Delivery | undefined {
  const { messageId, operation, old, new: row, topic } = change
  const op = operation === null ? undefined : ops[operation]
  // A copy that has to be made afresh: Debezium has no word for it.
  if (op === undefined) return undefined
  const table = tableOf(change)
  return {
    messageId,
    destination: `${topicPrefix}.${topic}`,
    key: keyOf(change),
    headers: { id: messageId },
    contentType: 'application/json',
    body: jsonBody({
      before: debeziumRow(old, table),
      after: debeziumRow(row, table),
      source: sourceOf(change, topicPrefix, database),
      transaction: null,
      op,
      // When it was written: the same at each attempt.
      ts_ms: Date.parse(change.createdAt),
    }),
    change,
  }
}

function sourceOf({ xid, table, topic, createdAt }: Change, name: string, db: string): Record<string, unknown> {
  const full = table ?? topic
  const dot = full.indexOf('.')
  return {
    version: 'trunkline',
    connector: 'postgresql',
    name,
    ts_ms: Date.parse(createdAt),
    snapshot: 'false',
    db,
    sequence: null,
    schema: full.slice(0, dot),
    table: full.slice(dot + 1),
    txId: Number(xid),
    lsn: null,
    xmin: null,
  }
}

/** An object of the key columns, in their order; of a table without a key the row; of a table that is gone the bare key. */
function keyOf(change: Change): string | null {
  const row = change.new ?? change.old
  const table = tableOf(change)
  if (change.key === null || row === null || table === undefined) return change.key
  const written = debeziumRow(row, table) ?? {}
  const names = table.keyColumns
  return JSON.stringify(names.length === 0 ? written : Object.fromEntries(names.map((name) => [name, written[name]])))
}

/** A line has no key and no headers beside it. */
function inLine(delivery: Delivery): Delivery {
  const { destination, key, headers, body } = delivery
  const names = JSON.stringify({ topic: destination, key, headers })
  return { ...delivery, headers: {}, body: Buffer.from(`${names.slice(0, -1)},"value":${body.toString()}}`) }
}
