import { describe, expect, test } from 'vitest'
import { Arrivals } from '../../src/cli/demo/arrivals.ts'
import { type DeliveriesEvent } from '../../src/cli/demo/events.ts'
import { Figures } from '../../src/cli/demo/figures.ts'
import { fingerprintOf } from '../../src/cli/demo/fingerprint.ts'
import { Latencies } from '../../src/cli/demo/latencies.ts'
import { type DemoTable } from '../../src/cli/demo/tables.ts'
import { type Violation, Visibility } from '../../src/cli/demo/visibility.ts'

/** The demo may call nothing equal that is not, and nothing whole that came in parts. */
describe('what the demo notices', () => {
  const first = { instance: 1, pid: 100 }
  const second = { instance: 2, pid: 200 }
  const never = new AbortController().signal

  test('latency counts from COMMIT, and the wait ends when all have seen it', async () => {
    const { visibility, violations } = watch()
    const revision = visibility.next()
    visibility.commit(revision, 3, 1000)
    visibility.record(first, { atMs: 1002, revisions: [{ revision, rows: 3 }] })
    const seen = visibility.untilSeen(revision, [first, second], never)
    visibility.record(second, { atMs: 1007, revisions: [{ revision, rows: 3 }] })
    expect(await seen).toEqual([2, 7])
    expect(violations).toEqual([])
  })

  test('a rolled back transaction, one seen too early, one in parts, one with too few rows', () => {
    const { visibility, violations } = watch()
    const [rolledBack, early, parts, few] = [visibility.next(), visibility.next(), visibility.next(), visibility.next()]
    visibility.record(first, { atMs: 1, revisions: [{ revision: rolledBack, rows: 1 }] })
    visibility.commit(early, 1, 50)
    visibility.record(first, { atMs: 49, revisions: [{ revision: early, rows: 1 }] })
    visibility.commit(parts, 2, 60)
    visibility.record(first, { atMs: 61, revisions: [{ revision: parts, rows: 2 }] })
    visibility.record(first, { atMs: 62, revisions: [{ revision: parts, rows: 1 }] })
    visibility.record(second, { atMs: 62, revisions: [{ revision: parts, rows: 2 }] })
    visibility.commit(few, 5, 70)
    visibility.record(second, { atMs: 71, revisions: [{ revision: few, rows: 4 }] })
    expect(violations).toEqual([
      { instance: 1, revision: rolledBack, what: 'was seen and never committed' },
      { instance: 1, revision: early, what: 'was seen before its COMMIT was sent' },
      { instance: 1, revision: parts, what: 'was seen in parts: 1 rows came in another step' },
      { instance: 2, revision: few, what: 'was seen with 4 of its 5 rows' },
    ])
  })

  test('orders that are lost, that never were, that come out of order, and those that only come again', () => {
    const arrivals = new Arrivals()
    const [one, two, three, other] = [1, 2, 3, 1].map((number, place) => ({
      order: place + 1,
      customer: place < 3 ? 'a' : 'b',
      number,
    }))
    for (const order of [one!, three!, one!, three!, two!, other!]) arrivals.add(order, undefined)
    expect(arrivals.repeated).toBe(2)
    expect(arrivals.check(new Set([1, 2, 3, 4]))).toEqual({ lost: 0, invented: 0, outOfOrder: 1 })
    expect(arrivals.check(new Set([1, 2, 3, 5]))).toEqual({ lost: 1, invented: 1, outOfOrder: 1 })
  })

  test('the result counts deliveries as they were at the last check, not those of orders that came after it', () => {
    const figures = new Figures()
    const delivered = (orders: number): DeliveriesEvent['file'] => ({
      orders,
      repeated: 0,
      ms: new Latencies().percentiles(),
    })
    const arrived = { lost: 0, invented: 0, outOfOrder: 0, repeated: 0 }
    figures.add({ event: 'deliveries', webhook: delivered(5), file: delivered(5) })
    figures.add({
      event: 'order-check',
      after: 'the end',
      orders: 5,
      rollbacks: 0,
      webhook: arrived,
      file: arrived,
      billed: { orders: 5, wrong: 0, outOfOrder: 0 },
      differences: 0,
      checkMs: 1,
    })
    figures.add({ event: 'deliveries', webhook: delivered(8), file: delivered(7) })
    expect(figures.result(1)).toMatchObject({ orders: 5, webhook: { orders: 5 }, file: { orders: 5 } })
  })

  test('fingerprints do not depend on the order of rows, and do on every value, type and column', () => {
    const table: DemoTable = { name: 't', key: ['id'], indexes: {}, captured: 'keys', create: '' }
    const rows = [
      { id: 1, name: 'a', more: { x: 1 } },
      { id: 2, name: 'b', more: null },
    ] as const
    const digestOf = (given: readonly Record<string, unknown>[]): string => fingerprintOf(table, given).digest
    const others = [
      [rows[0]],
      [...rows, { id: 3, name: '', more: null }],
      [{ ...rows[0], name: 'A' }, rows[1]],
      [{ ...rows[0], id: '1' }, rows[1]],
      [{ ...rows[0], more: { x: 2 } }, rows[1]],
      [rows[0], { ...rows[1], more: 'null' }],
      [rows[0], { ...rows[1], more: undefined }],
      [
        { id: 1, more: { x: 1 }, name: 'a' },
        { id: 2, more: null, name: 'b' },
      ],
      [
        { id: 1, name: 'b', more: { x: 1 } },
        { id: 2, name: 'a', more: null },
      ],
    ]
    expect(digestOf(rows.toReversed())).toBe(digestOf(rows))
    expect(new Set([digestOf(rows), ...others.map(digestOf)]).size).toBe(others.length + 1)
  })
})

function watch(): { visibility: Visibility; violations: Violation[] } {
  const violations: Violation[] = []
  return { visibility: new Visibility((violation) => violations.push(violation)), violations }
}
