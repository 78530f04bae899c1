import { expect, test } from 'vitest'
import { z } from 'zod'
import { type AnyUpcaster, EventError, type Events, type StandardSchema, upcaster } from '../../src/index.ts'
import { describeEachPostgres } from '../support/index.ts'
import { added, noOrder, opened, order, type OrderEvent, useEvents } from './order.ts'

/** A list of everything that evolve was given. */
const journal = {
  type: 'order',
  initialState: [] as readonly unknown[],
  evolve: (state: readonly unknown[], { type, payload }: { type: string; payload: unknown }) => [
    ...state,
    [type, payload],
  ],
}

/** item-added came as thing (version 1, a text), thing (2, an object), and as a pair; `noise` is of no use any more. */
const upcasters = [
  upcaster({
    from: { type: 'thing-added', schemaVersion: 1 },
    to: { type: 'thing-added', schemaVersion: 2 },
    upcast: (name: string) => ({ name, count: 1 }),
  }),
  upcaster({
    from: { type: 'thing-added', schemaVersion: 2 },
    to: { type: 'item-added', schemaVersion: 3 },
    upcast: ({ name, count }: { name: string; count: number }) => ({ sku: name, quantity: count }),
  }),
  upcaster({
    from: { type: 'pair-added', schemaVersion: 1 },
    to: [{ type: 'thing-added', schemaVersion: 1 }],
    upcast: (names: string[]) => names.map((payload) => ({ type: 'thing-added' as const, payload })),
  }),
  upcaster({ from: { type: 'noise', schemaVersion: 1 }, to: [] }),
] as const

test('upcasters that lead nowhere do not compile', () => {
  const rename = upcaster({
    from: { type: 'put', schemaVersion: 1 },
    to: { type: 'item-added', schemaVersion: 1 },
    upcast: (sku: string) => ({ sku }),
  })
  const types = (events: Events): void => {
    events.aggregate({ ...order, upcasters })
    // @ts-expect-error -- the payload has no quantity
    events.aggregate({ ...order, upcasters: [rename] })
    const lost = upcaster({
      from: { type: 'a', schemaVersion: 1 },
      to: { type: 'b', schemaVersion: 1 },
      upcast: (old: string) => old,
    })
    // @ts-expect-error -- nothing takes "b"
    events.aggregate({ ...order, upcasters: [lost] })
    const further = upcaster({
      from: { type: 'b', schemaVersion: 1 },
      to: { type: 'opened', schemaVersion: 1 },
      upcast: (old: number) => ({ customerId: String(old) }),
    })
    // @ts-expect-error -- "b" is made of a text, and its upcaster takes a number
    events.aggregate({ ...order, upcasters: [lost, further] })
    // @ts-expect-error -- no such event
    events.aggregate({ ...order, events: { opened: {}, 'item-added': {}, shipped: {}, lost: {} } })
    // @ts-expect-error -- the payload of another event
    void events.aggregate(order).handle('1', () => ({ type: 'shipped', payload: { sku: 'a' } }))
    const personal = { fields: ['customerId', 'name'], subject: () => '' } as const
    // @ts-expect-error -- there is no field "name"
    events.aggregate({ ...order, events: { opened: { personal }, 'item-added': {}, shipped: {} } })
  }
  expect(types).toBeTypeOf('function')
})

describeEachPostgres('upcasters and schemas', (server) => {
  const bench = useEvents(server)

  test('old events are chained, renamed, split and dropped; versions stay those of the stream', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    const stream = `order-${id}`
    await events.append(stream, 0, [
      { type: 'thing-added', payload: 'a' },
      { type: 'pair-added', payload: ['b', 'c'] },
      { type: 'pair-added', payload: [] },
      { type: 'thing-added', schemaVersion: 2, payload: { name: 'd', count: 4 } },
      { type: 'noise', payload: null },
    ])
    const orders = events.aggregate({ ...order, upcasters, snapshotEvery: 2 })
    const skus = async (aggregate = orders): Promise<unknown> =>
      (await aggregate.load(id)).state.lines.map(({ sku, quantity }) => `${sku}${quantity}`)
    expect(await skus()).toEqual(['a1', 'b1', 'c1', 'd4'])
    // The last event was dropped, and the next one follows on it.
    expect(await orders.handle(id, (_, { version }) => added(`after ${version}`, 0))).toMatchObject({ version: 6 })
    await events.settled()
    const again = bench.open().events.aggregate({ ...order, upcasters, snapshotEvery: 2 })
    expect(await skus(again)).toEqual(['a1', 'b1', 'c1', 'd4', 'after 50'])
    expect((await again.load(id)).version).toBe(6)
    expect(await again.load(id, { toVersion: 2 })).toMatchObject({ version: 2, state: { lines: [{}, {}, {}] } })

    const read = await events.read(stream)
    expect(read.map(({ type, schemaVersion, version }) => [type, schemaVersion, version])).toEqual([
      ['item-added', 3, 1],
      ['item-added', 3, 2],
      ['item-added', 3, 2],
      ['item-added', 3, 4],
      ['item-added', 3, 6],
    ])
    // What is stored never changes; what is written today is written in today's form.
    const raw = await bench.open().events.read(stream)
    expect(raw.map(({ type, schemaVersion }) => `${type} ${schemaVersion}`)).toEqual([
      'thing-added 1',
      'pair-added 1',
      'pair-added 1',
      'thing-added 2',
      'noise 1',
      'item-added 3',
    ])
  })

  test('a process without the aggregate declares the events', async () => {
    const { events } = bench.open()
    const stream = `order-${bench.newId()}`
    await events.append(stream, 0, { type: 'thing-added', payload: 'a' })
    events.declare<OrderEvent>({ type: 'order', upcasters: [...upcasters] })
    await events.append(stream, 1, added('b'))
    expect((await events.read(stream)).map(({ payload, schemaVersion }) => [payload, schemaVersion])).toEqual([
      [{ sku: 'a', quantity: 1 }, 3],
      [{ sku: 'b', quantity: 1 }, 3],
    ])
    await events.append(`other-${bench.newId()}`, 0, { type: 'thing-added', payload: 'a' })
  })

  test.each([
    [
      'throws',
      (): unknown => {
        throw new Error('no such form')
      },
      /no such form/,
    ],
    ['gives nothing', (): unknown => undefined, /returned nothing/],
    ['gives a promise', async (): Promise<unknown> => ({}), /promise/],
  ])('an upcaster that %s: an error with event, stream and version', async (_, upcast, message) => {
    const { events } = bench.open()
    const id = bench.newId()
    await events.append(`order-${id}`, 0, [opened, { type: 'item-added', payload: 1 }])
    const broken = events.aggregate({
      ...journal,
      upcasters: [
        { from: { type: 'item-added', schemaVersion: 1 }, to: { type: 'item-added', schemaVersion: 2 }, upcast },
      ],
    })
    const expected = {
      code: 'upcaster_failed',
      eventType: 'item-added',
      stream: `order-${id}`,
      version: 2,
      retryable: false,
    }
    for (const run of [
      async () => broken.load(id),
      async () => broken.handle(id, () => opened),
      async () => events.read(`order-${id}`),
    ]) {
      const failing = run()
      await expect(failing).rejects.toBeInstanceOf(EventError)
      await expect(failing).rejects.toMatchObject(expected)
      await expect(failing).rejects.toThrow(message)
    }
    expect(await bench.open().events.read(`order-${id}`)).toHaveLength(2)
  })

  test('an unknown type is an error that names it and the stream, unless it is to be ignored', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    await events.append(`order-${id}`, 0, [opened, { type: 'teleported', payload: null }])
    const listed = { ...order, events: { opened: {}, 'item-added': {}, shipped: {} } }
    const expected = { code: 'unknown_event_type', eventType: 'teleported', stream: `order-${id}`, version: 2 }
    await expect(events.aggregate(order).load(id)).rejects.toMatchObject(expected)
    await expect(events.aggregate(listed).load(id)).rejects.toMatchObject(expected)
    for (const kind of [order, listed]) {
      expect(await events.aggregate({ ...kind, unknownEvents: 'ignore' }).load(id)).toMatchObject({
        version: 2,
        state: { status: 'open' },
      })
    }
    // With the list it is refused before it is written, too.
    await expect(events.append(`order-${id}`, 2, [opened, { type: 'beamed', payload: null }])).rejects.toMatchObject({
      code: 'unknown_event_type',
      eventType: 'beamed',
      stream: `order-${id}`,
    })
    await expect(
      events.aggregate(listed).handle(bench.newId(), () => ({ type: 'beamed' }) as never),
    ).rejects.toMatchObject({
      code: 'unknown_event_type',
    })
    expect(await bench.open().events.read(`order-${id}`)).toHaveLength(2)
  })

  test('a form that is newer than the newest, or has no upcaster, is an error', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    await events.append(`order-${id}`, 0, { type: 'item-added', schemaVersion: 9, payload: {} })
    const orders = events.aggregate({ ...order, upcasters })
    await expect(orders.load(id)).rejects.toMatchObject({ code: 'unknown_schema_version', version: 1 })
    await expect(orders.load(id)).rejects.toThrow('newer release')
    const other = bench.newId()
    await bench.open().events.append(`order-${other}`, 0, { type: 'item-added', schemaVersion: 1, payload: {} })
    await expect(orders.load(other)).rejects.toThrow('Add an upcaster from schema version 1')
  })

  test.each<[string, readonly unknown[]]>([
    ['a cycle', [step('a', 1, 'b', 1), step('b', 1, 'a', 1)]],
    ['two from one', [step('a', 1, 'a', 2), step('a', 1, 'a', 3)]],
    ['a gap', [step('a', 1, 'a', 2), step('b', 1, 'a', 3)]],
    ['no number', [step('a', 0, 'a', 1)]],
    ['no function', [{ from: { type: 'a', schemaVersion: 1 }, to: { type: 'a', schemaVersion: 2 } }]],
  ])('upcasters with %s are refused at once', (_, list) => {
    expect(() => bench.open().events.aggregate({ ...journal, upcasters: list as AnyUpcaster[] })).toThrow(
      expect.objectContaining({ code: 'invalid_upcaster' }),
    )
  })

  test('a payload that fails its schema: an error with event, stream and what is wrong; nothing is written', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    const stream = `order-${id}`
    const quantity = z.int().positive()
    const orders = events.aggregate({
      ...order,
      events: {
        opened: {},
        'item-added': { schema: z.object({ sku: z.string(), quantity }) },
        shipped: { schema: later({ issues: [{ message: 'no carrier', path: ['carrier', { key: 'name' }] }] }) },
      },
    })
    const expected = { code: 'invalid_payload', eventType: 'item-added', stream }
    for (const run of [
      () => orders.handle(id, () => [opened, added('a', -1)]),
      () => events.append(stream, 'any', [opened, added('a', -1)]),
    ]) {
      const failing = run()
      await expect(failing).rejects.toMatchObject(expected)
      await expect(failing).rejects.toThrow(/quantity: /)
    }
    await expect(orders.handle(id, () => ({ type: 'shipped', payload: { carrier: 'x' } }))).rejects.toThrow(
      'carrier.name: no carrier',
    )
    const thrower = {
      '~standard': { version: 1 as const, vendor: 'test', validate: () => Promise.reject(new Error('broken rule')) },
    }
    events.declare({ type: 'order', events: { opened: { schema: thrower } } })
    const broken = events.append(stream, 'any', opened)
    await expect(broken).rejects.toMatchObject({ code: 'invalid_payload', eventType: 'opened', stream })
    await expect(broken).rejects.toThrow('broken rule')
    // A Date becomes a text when it is stored, and is one for the schema.
    await expect(orders.handle(id, () => added(new Date(0) as never, Number.NaN))).rejects.toMatchObject({
      code: 'invalid_event',
    })
    expect(await events.read(stream)).toEqual([])
    expect(await orders.handle(id, () => [opened, added('a', 2)])).toMatchObject({ version: 2 })
  })

  test('with validate: read, what is stored is checked as well', async () => {
    const id = bench.newId()
    await bench.open().events.append(`order-${id}`, 0, [opened, added('a', -1)])
    const kind = {
      ...order,
      events: {
        opened: {},
        'item-added': { schema: z.object({ sku: z.string(), quantity: z.int().positive() }) },
        shipped: {},
      },
    }
    const { events } = bench.open()
    expect((await events.aggregate(kind).load(id)).version).toBe(2)
    const checked = events.aggregate({ ...kind, validate: 'read' })
    const expected = { code: 'invalid_payload', eventType: 'item-added', stream: `order-${id}`, version: 2 }
    await expect(checked.load(id)).rejects.toMatchObject(expected)
    await expect(Promise.resolve(events.read(`order-${id}`))).rejects.toMatchObject(expected)
  })

  test('wrong definitions are refused at once', () => {
    const { events } = bench.open()
    for (const definition of [{ schemaVersion: 2 }, { schema: {} }, { personal: { fields: 'name' } }]) {
      expect(() => events.aggregate({ ...journal, events: { x: definition as never } })).toThrow(
        expect.objectContaining({ code: 'invalid_event_definition' }),
      )
    }
    expect(noOrder.lines).toEqual([])
  })
})

function step(from: string, version: number, to: string, next: number): AnyUpcaster {
  return upcaster({
    from: { type: from, schemaVersion: version },
    to: { type: to, schemaVersion: next },
    upcast: (payload: unknown) => payload,
  })
}

/** A schema that answers with a promise. */
function later(result: {
  issues: { message: string; path: (string | { key: string })[] }[]
}): StandardSchema<{ carrier: string }> {
  return { '~standard': { version: 1, vendor: 'test', validate: async () => result } }
}
