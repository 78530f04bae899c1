import { deepEqual, ok } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { Delivery, Sink } from '../../relay/index.ts'

/** What the suite writes into a body, to know it again. */
export interface Mark {
  readonly messageId: string
  readonly key: string | null
  readonly number: number
}

/** A delivery as the relay would make it of an event. */
export function deliveryOf(key: string | null, number: number): Delivery {
  const messageId = randomUUID()
  const mark: Mark & { text: string } = { messageId, key, number, text: 'ünïcode "quoted" 漢字 \u2028 end' }
  return {
    messageId,
    destination: 'outbox.event.contract',
    key,
    headers: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
    contentType: 'application/json',
    body: Buffer.from(JSON.stringify(mark)),
    change: {
      position: '',
      id: String(number),
      xid: '1',
      messageId,
      topic: 'contract',
      key,
      type: 'contract-tested',
      table: null,
      operation: null,
      old: null,
      new: null,
      payload: mark,
      headers: null,
      createdAt: '2026-01-01T00:00:00.000000Z',
    },
  }
}

/** Deliveries numbered from `first` of one key. */
export function deliveriesOf(key: string | null, count: number, first = 1): Delivery[] {
  return Array.from({ length: count }, (_, index) => deliveryOf(key, first + index))
}

/** One of each list in turn: keys mixed, as a log has them. */
export function interleaved(lists: readonly (readonly Delivery[])[]): Delivery[] {
  const longest = Math.max(0, ...lists.map((list) => list.length))
  return Array.from({ length: longest }, (_, index) => lists.flatMap((list) => list.slice(index, index + 1))).flat()
}

/** In calls no larger than the sink takes. */
export function batchesOf(sink: Sink, deliveries: readonly Delivery[]): Delivery[][] {
  const size = sink.batchSizeMax ?? 1
  const count = Math.ceil(deliveries.length / size)
  return Array.from({ length: count }, (_, index) => deliveries.slice(index * size, (index + 1) * size))
}

function marksOf(bodies: readonly Buffer[]): Mark[] {
  return bodies.map((body) => JSON.parse(body.toString('utf8')) as Mark)
}

/** Each of them is there, whole, and nothing else is. */
export function assertHolds(bodies: readonly Buffer[], deliveries: readonly Delivery[]): void {
  const texts = new Set(bodies.map((body) => body.toString('utf8')))
  const expected = deliveries.map(({ body }) => body.toString('utf8'))
  const missing = expected.filter((text) => !texts.has(text))
  deepEqual(missing, [], 'confirmed, and not there')
  const known = new Set(expected)
  const strange = [...texts].filter((text) => !known.has(text))
  deepEqual(strange, [], 'there, and never confirmed as delivered nor given')
}

/** Each key in order. A repetition is in order when it repeats what went before. */
export function assertInOrder(bodies: readonly Buffer[]): void {
  const highest = new Map<string, number>()
  for (const { key, number } of marksOf(bodies)) {
    if (key === null) continue
    const before = highest.get(key) ?? 0
    ok(number <= before + 1, `key ${key}: ${number} came before ${before + 1}`)
    highest.set(key, Math.max(before, number))
  }
}

export function assertNoRepetition(bodies: readonly Buffer[]): void {
  const texts = bodies.map((body) => body.toString('utf8'))
  const repeated = texts.filter((text, index) => texts.indexOf(text) !== index)
  deepEqual(repeated, [], 'delivered twice although nothing failed')
}
