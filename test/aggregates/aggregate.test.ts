import pg from 'pg'
import { createPool, sql } from 'slonik'
import { expect, onTestFinished, test } from 'vitest'
import { VersionConflictError } from '../../src/index.ts'
import { describeEachPostgres } from '../support/index.ts'
import { added, noOrder, opened, order, type OrderEvent, useEvents } from './order.ts'

describeEachPostgres('aggregates', (server) => {
  const bench = useEvents(server)

  test('a command loads, decides, appends; what it decided is loaded again', async () => {
    const orders = bench.open().events.aggregate(order)
    const id = bench.newId()
    expect(await orders.load(id)).toEqual({ id, stream: `order-${id}`, version: 0, state: noOrder })
    const first = await orders.handle(id, (state, { version }) => {
      expect([state, version]).toEqual([noOrder, 0])
      return [opened, added('a')]
    })
    expect(first).toMatchObject({ id, version: 2, state: { status: 'open', lines: [{ sku: 'a', quantity: 1 }] } })
    expect(first.events).toMatchObject([
      { type: 'opened', version: 1 },
      { type: 'item-added', version: 2 },
    ])
    const second = await orders.handle(id, (state) =>
      state.status === 'open' ? { type: 'shipped', payload: { carrier: 'x' } } : [],
    )
    expect(second.version).toBe(3)
    const loaded = await orders.load(id)
    expect(loaded).toEqual({ id, stream: `order-${id}`, version: 3, state: second.state })
    expect(await bench.open().events.aggregate(order).load(id)).toEqual(loaded)
  })

  test('a decide that throws, or decides nothing, appends nothing', async () => {
    const orders = bench.open().events.aggregate(order)
    const id = bench.newId()
    await expect(
      orders.handle(id, () => {
        throw new Error('no such customer')
      }),
    ).rejects.toThrow('no such customer')
    expect(await orders.handle(id, () => undefined)).toMatchObject({ version: 0, events: [], state: noOrder })
    expect(await orders.handle(id, async () => [])).toMatchObject({ version: 0, events: [] })
    expect(await bench.open().events.read(`order-${id}`)).toEqual([])
  })

  test('an event that evolve cannot take is not appended', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    const strict = events.aggregate({
      ...order,
      evolve: (state: typeof noOrder, event: OrderEvent) => {
        if (event.type === 'item-added' && event.payload.quantity < 0) throw new Error('less than none')
        return order.evolve(state, event)
      },
    })
    await expect(strict.handle(id, () => [opened, added('a', -1)])).rejects.toMatchObject({
      code: 'evolve_failed',
      eventType: 'item-added',
      stream: `order-${id}`,
      version: 2,
    })
    expect(await events.read(`order-${id}`)).toEqual([])
  })

  test('another writer between load and append: decided again on what he wrote', async () => {
    const { events } = bench.open()
    const orders = events.aggregate(order)
    const id = bench.newId()
    await orders.handle(id, () => opened)
    const seen: number[] = []
    const result = await orders.handle(id, async (state, { version }) => {
      seen.push(version)
      if (version === 1) await events.append(`order-${id}`, 'any', added('theirs'))
      return added(`ours after ${state.lines.length}`)
    })
    expect(seen).toEqual([1, 2])
    expect(result.version).toBe(3)
    expect(result.state.lines.map(({ sku }) => sku)).toEqual(['theirs', 'ours after 1'])
    expect((await orders.load(id)).state).toEqual(result.state)
  })

  test('conflicts are tried again a stated number of times', async () => {
    const { events } = bench.open()
    const orders = events.aggregate({ ...order, retriesMax: 1 })
    const id = bench.newId()
    const attempts = { own: 0, given: 0 }
    const losing = async (kind: keyof typeof attempts): Promise<OrderEvent> => {
      attempts[kind] += 1
      await events.append(`order-${id}`, 'any', added('theirs'))
      return added('ours')
    }
    await expect(orders.handle(id, () => losing('own'))).rejects.toBeInstanceOf(VersionConflictError)
    await expect(orders.handle(id, () => losing('given'), { retriesMax: 3 })).rejects.toMatchObject({ retryable: true })
    expect(attempts).toEqual({ own: 2, given: 4 })
    expect((await orders.load(id)).version).toBe(6)
    await expect(orders.handle(id, () => added('x'), { retriesMax: -1 })).rejects.toMatchObject({
      code: 'invalid_option',
    })
  })

  test('in a transaction of the caller it reads its own writes, is not tried again, and goes with it', async () => {
    const { events } = bench.open()
    const orders = events.aggregate({ ...order, snapshotEvery: 1 })
    const id = bench.newId()
    await orders.handle(id, () => opened)
    const tx = await bench.database().connect()
    await tx.query('begin')
    await orders.handle(id, () => added('a'), { tx })
    const inside = await orders.handle(id, (state) => added(`after ${state.lines.length}`), { tx })
    expect(inside.version).toBe(3)
    expect((await orders.load(id, { tx })).state).toEqual(inside.state)
    expect((await orders.load(id)).version).toBe(1)
    await tx.query('rollback')
    expect(await orders.load(id)).toMatchObject({ version: 1, state: { lines: [] } })

    await tx.query('begin isolation level repeatable read')
    expect((await orders.load(id, { tx })).version).toBe(1)
    await orders.handle(id, () => added('b'))
    expect((await orders.load(id)).version).toBe(2)
    // What is in memory is newer than what this transaction sees.
    expect(await orders.load(id, { tx })).toMatchObject({ version: 1, state: { lines: [] } })
    let attempts = 0
    const late = orders.handle(id, () => ((attempts += 1), added('c')), { tx })
    await expect(late).rejects.toBeInstanceOf(VersionConflictError)
    expect(attempts).toBe(1)
    await tx.query('rollback')
    expect((await orders.load(id)).state.lines).toEqual([{ sku: 'b', quantity: 1 }])
  })

  test('works in a transaction of slonik', async () => {
    const orders = bench.open().events.aggregate({ ...order, snapshotEvery: 1 })
    const id = bench.newId()
    const pool = await createPool(bench.database().url)
    onTestFinished(() => pool.end())
    await pool.transaction(async (tx) => {
      await orders.handle(id, () => [opened, added('a')], { tx })
      await tx.query(sql.unsafe`select 1`)
    })
    expect((await orders.load(id)).version).toBe(2)
  })

  test('24 writers of one aggregate lose nothing', { retry: 0, timeout: 120_000 }, async () => {
    const pool = new pg.Pool({ connectionString: bench.database().url, max: 12 })
    onTestFinished(() => pool.end())
    const id = bench.newId()
    // Each instance has a memory of its own, as processes have.
    const instances = Array.from({ length: 8 }, () =>
      bench.open({ pool }).events.aggregate({ ...order, snapshotEvery: 7, retriesMax: 1_000 }),
    )
    const wanted: string[] = []
    await Promise.all(
      Array.from({ length: 24 }, async (_, writer) => {
        for (let n = 0; n < 10; n += 1) {
          const sku = `${writer}/${n}`
          wanted.push(sku)
          const { state } = await instances[writer % 8]!.handle(id, (before) => added(sku, before.lines.length))
          expect(state.lines.at(-1)).toMatchObject({ sku })
        }
      }),
    )
    for (const orders of [...instances, bench.open().events.aggregate(order)]) {
      const { state, version } = await orders.load(id)
      expect(version).toBe(240)
      expect(state.lines.map(({ sku }) => sku).toSorted()).toEqual(wanted.toSorted())
      // Each decided on the state right before it.
      expect(state.lines.map(({ quantity }) => quantity)).toEqual(Array.from({ length: 240 }, (__, index) => index))
    }
  })

  test('commands of one process wait for each other, and never for ever', async () => {
    const orders = bench.open().events.aggregate(order)
    const id = bench.newId()
    let decided = 0
    const skus = Array.from({ length: 60 }, (_, n) => `s${n}`)
    await Promise.all(skus.map(async (sku) => orders.handle(id, () => ((decided += 1), added(sku)))))
    expect((await orders.load(id)).state.lines.map(({ sku }) => sku)).toEqual(skus)
    // All at once they would be decided some hundred times; on a machine that stands still, one or the other may be again.
    expect(decided).toBeLessThan(90)

    const other = bench.newId()
    const outer = await orders.handle(other, async (state) => {
      // A command inside of a command of the same aggregate: it goes first, and the outer one loses against it once.
      if (state.lines.length === 0) await orders.handle(other, () => added('inner'))
      return added('outer')
    })
    expect(outer.state.lines.map(({ sku }) => sku)).toEqual(['inner', 'outer'])
    await expect(orders.handle(other, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect((await orders.handle(other, () => added('after'))).version).toBe(3)
  })

  test('as it was: at a version, at a time', async () => {
    const { events } = bench.open()
    const orders = events.aggregate({ ...order, snapshotEvery: 2 })
    const id = bench.newId()
    await orders.handle(id, () => opened)
    const { lines: none } = noOrder
    await bench.database().query('select pg_sleep(0.01)')
    const [now] = await bench.database().query<{ now: Date }>('select clock_timestamp() as now')
    await bench.database().query('select pg_sleep(0.01)')
    for (const sku of ['a', 'b', 'c']) await orders.handle(id, () => added(sku))
    await events.settled()
    expect(await orders.load(id, { asOf: now!.now })).toMatchObject({
      version: 1,
      state: { status: 'open', lines: none },
    })
    expect(await orders.load(id, { asOf: '2001-01-01' })).toMatchObject({ version: 0, state: noOrder })
    expect(await orders.load(id, { toVersion: 0 })).toMatchObject({ version: 0, state: noOrder })
    expect(await orders.load(id, { toVersion: 2 })).toMatchObject({ version: 2, state: { lines: [{ sku: 'a' }] } })
    expect(await orders.load(id, { toVersion: 99 })).toMatchObject({ version: 4 })
    await expect(orders.load(id, { toVersion: -1 })).rejects.toMatchObject({ code: 'invalid_option' })
    await expect(orders.load(id, { asOf: new Date(Number.NaN) })).rejects.toMatchObject({ code: 'invalid_option' })
    await expect(orders.load('')).rejects.toMatchObject({ code: 'invalid_stream' })
  })

  test('the same event ids again give the first result', async () => {
    const { events } = bench.open()
    const orders = events.aggregate(order)
    const id = bench.newId()
    const eventId = '018f3a4c-0000-7000-8000-0000000000aa'.replace('aa', server.version.padStart(2, '0'))
    const once = await orders.handle(id, () => ({ ...opened, id: eventId }))
    await orders.handle(id, () => added('a'))
    const again = await orders.handle(id, () => ({ ...opened, id: eventId }))
    expect(again.events).toEqual(once.events)
    expect(again).toMatchObject({ version: 2, state: { lines: [{ sku: 'a' }] } })
  })

  test.each([
    [{ ...order, type: 'or-der' }, 'invalid_stream'],
    [{ ...order, type: '' }, 'invalid_stream'],
    [{ ...order, snapshotEvery: 0 }, 'invalid_option'],
    [{ ...order, stateVersion: 1.5 }, 'invalid_option'],
    [{ ...order, hotMax: -1 }, 'invalid_option'],
    [{ ...order, retriesMax: Number.NaN }, 'invalid_option'],
    [{ ...order, evolve: undefined as never }, 'invalid_option'],
    [{ type: 'order', evolve: order.evolve } as never, 'invalid_option'],
  ])('refuses wrong options (%#)', (options, code) => {
    expect(() => bench.open().events.aggregate(options)).toThrow(expect.objectContaining({ code }))
  })
})
