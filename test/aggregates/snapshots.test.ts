import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Logger } from '../../src/index.ts'
import { describeEachPostgres } from '../support/index.ts'
import { added, opened, order, useEvents } from './order.ts'

/** A logger that keeps its warnings. */
function warningsOf(): { logger: Logger; warnings: string[] } {
  const warnings: string[] = []
  const ignore = (): void => undefined
  return {
    warnings,
    logger: { debug: ignore, info: ignore, error: ignore, warn: (message) => void warnings.push(message) },
  }
}

/** A sum that counts how often it was made. */
function counter(): { evolved: number; evolve: (state: Sum, event: Added) => Sum } {
  const result = {
    evolved: 0,
    evolve: (state: Sum, { payload }: Added): Sum => {
      result.evolved += 1
      return { sum: (state.sum * 31 + payload) % 1_000_003, count: state.count + 1 }
    },
  }
  return result
}
interface Sum {
  readonly sum: number
  readonly count: number
}
interface Added {
  readonly type: 'added'
  readonly payload: number
}
const nothing: Sum = { sum: 0, count: 0 }
function plus(payload: number): Added {
  return { type: 'added', payload }
}

describeEachPostgres('aggregate snapshots', (server) => {
  const bench = useEvents(server)

  async function snapshotsOf(
    id: string,
    type = 'sum',
  ): Promise<{ schema_version: number; version: string; state: unknown }[]> {
    return bench
      .database()
      .query(
        'select schema_version, version, state from trunkline.aggregate_snapshot where aggregate_type = $1 and aggregate_id = $2 order by 1',
        [type, id],
      )
  }

  test('one is stored every n events, and a load begins at it', async () => {
    const { events } = bench.open()
    const kind = { type: 'sum', initialState: nothing, snapshotEvery: 10 } as const
    const sums = events.aggregate({ ...kind, ...counter() })
    const id = bench.newId()
    for (let n = 1; n <= 9; n += 1) await sums.handle(id, () => plus(n))
    await events.settled()
    expect(await snapshotsOf(id)).toEqual([])
    for (let n = 10; n <= 23; n += 1) await sums.handle(id, () => plus(n))
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([{ schema_version: 1, version: '20', state: { count: 20 } }])

    const fresh = counter()
    const loaded = await bench
      .open()
      .events.aggregate({ ...kind, ...fresh })
      .load(id)
    expect(fresh.evolved).toBe(3)
    const all = counter()
    expect(
      await bench
        .open()
        .events.aggregate({ ...kind, snapshotEvery: undefined, ...all })
        .load(id),
    ).toEqual(loaded)
    expect(all.evolved).toBe(23)
  })

  test('a load that had to replay many events stores one, too; hot states replay only what is new', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    await events.append(
      `sum-${id}`,
      0,
      Array.from({ length: 25 }, (_, n) => plus(n)),
    )
    const counted = counter()
    const sums = events.aggregate({ type: 'sum', initialState: nothing, snapshotEvery: 10, ...counted })
    await sums.load(id)
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([{ version: '25' }])
    await sums.load(id)
    expect(counted.evolved).toBe(25)
    await events.append(`sum-${id}`, 25, plus(1))
    expect((await sums.load(id)).version).toBe(26)
    expect(counted.evolved).toBe(26)
  })

  test('other versions of the state are ignored, and both may stand side by side', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    const kind = { type: 'sum', initialState: nothing, snapshotEvery: 2, hotMax: 0 } as const
    const old = events.aggregate({ ...kind, ...counter() })
    await old.handle(id, () => [plus(1), plus(2), plus(3)])
    await events.settled()
    const counted = counter()
    const renewed = events.aggregate({ ...kind, stateVersion: 2, ...counted })
    await renewed.load(id)
    expect(counted.evolved).toBe(3)
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([
      { schema_version: 1, version: '3' },
      { schema_version: 2, version: '3' },
    ])
  })

  test('a snapshot ahead of the stream, or of another history, is not believed, and is replaced', async () => {
    const { events } = bench.open()
    const id = bench.newId()
    const kind = { type: 'sum', initialState: nothing, snapshotEvery: 5 } as const
    const sums = events.aggregate({ ...kind, ...counter() })
    const hot = events.aggregate({ ...kind, snapshotEvery: undefined, ...counter() })
    await sums.handle(id, () => Array.from({ length: 12 }, (_, n) => plus(n)))
    const sleeping = events.aggregate({ ...kind, snapshotEvery: undefined, ...counter() })
    await hot.load(id)
    await sleeping.load(id)
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([{ version: '12' }])
    // A restore of the events alone, to before: the owner can do it with the trigger off.
    const cut = `alter table trunkline.event disable trigger event_immutable;
      delete from trunkline.event where aggregate_type = 'sum' and aggregate_id = '${id}' and version > 4;
      alter table trunkline.event enable always trigger event_immutable`
    await bench.database().query(cut)
    const truth = async (): Promise<unknown> =>
      bench
        .open()
        .events.aggregate({ ...kind, snapshotEvery: undefined, ...counter() })
        .load(id)
    expect(await truth()).toMatchObject({ version: 4, state: { count: 4 } })
    for (const aggregate of [sums, hot, bench.open().events.aggregate({ ...kind, ...counter() })]) {
      expect(await aggregate.load(id)).toEqual(await truth())
    }
    // The stream grows past it, with other events.
    await bench.open().events.append(
      `sum-${id}`,
      4,
      Array.from({ length: 20 }, (_, n) => plus(n + 100)),
    )
    for (const aggregate of [sums, hot, sleeping, bench.open().events.aggregate({ ...kind, ...counter() })]) {
      expect(await aggregate.load(id)).toEqual(await truth())
    }
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([{ version: '24', state: { count: 24 } }])
  })

  test('that one cannot be stored is no error of a command', async () => {
    const { logger, warnings } = warningsOf()
    const { events } = bench.open({ logger })
    const id = bench.newId()
    const sums = events.aggregate({ type: 'sum', initialState: nothing, snapshotEvery: 1, ...counter() })
    await bench.database().query('alter table trunkline.aggregate_snapshot rename to gone')
    try {
      // Of the functions that name the table only the one that stores fails: loads ask for a snapshot where nothing is in memory.
      await expect(sums.load(id)).rejects.toThrow()
    } finally {
      await bench.database().query('alter table trunkline.gone rename to aggregate_snapshot')
    }
    await bench
      .database()
      .query(`alter table trunkline.aggregate_snapshot add constraint refused check (version < 0) not valid`)
    try {
      expect((await sums.handle(id, () => plus(1))).version).toBe(1)
      await events.settled()
      expect((await sums.handle(id, () => plus(2))).version).toBe(2)
      await events.settled()
      expect(warnings.join()).toContain(`snapshot of sum-${id} was not stored`)
      expect(await snapshotsOf(id)).toEqual([])
    } finally {
      await bench.database().query('alter table trunkline.aggregate_snapshot drop constraint refused')
    }
    await sums.handle(id, () => plus(3))
    await events.settled()
    expect(await snapshotsOf(id)).toMatchObject([{ version: '3' }])
  })

  test('a state that JSON does not hold is not stored without a codec, and right in any case', async () => {
    const { logger, warnings } = warningsOf()
    const { events } = bench.open({ logger })
    const kind = {
      type: 'seen',
      initialState: () => new Map<number, Date>(),
      snapshotEvery: 1,
      evolve: (state: Map<number, Date>, { payload }: Added) => state.set(payload, new Date(payload)),
    } as const
    const id = bench.newId()
    const plain = events.aggregate(kind)
    await plain.handle(id, () => [plus(1), plus(2)])
    await events.settled()
    expect(await snapshotsOf(id, 'seen')).toEqual([])
    expect(warnings).toEqual([expect.stringContaining('stateCodec')])

    const coded = events.aggregate({
      ...kind,
      stateCodec: {
        encode: (state) => [...state.keys()],
        decode: (json) => new Map((json as number[]).map((key) => [key, new Date(key)])),
      },
    })
    const expected = new Map([1, 2].map((key) => [key, new Date(key)]))
    expect((await coded.load(id)).state).toEqual(expected)
    await events.settled()
    expect(await snapshotsOf(id, 'seen')).toMatchObject([{ state: [1, 2] }])
    expect(
      (
        await bench
          .open()
          .events.aggregate({ ...kind, snapshotEvery: undefined })
          .load(id)
      ).state,
    ).toEqual(expected)
    const decoded = bench.open().events.aggregate({
      ...kind,
      evolve: () => expect.fail('there is a snapshot'),
      stateCodec: { encode: () => null, decode: () => new Map([[7, new Date(7)]]) },
    })
    expect((await decoded.load(id)).state).toEqual(new Map([[7, new Date(7)]]))
  })

  test('what a caller does to his state, or evolve to the one it is given, harms nobody', async () => {
    const { events } = bench.open()
    const changing = events.aggregate({
      type: 'list',
      initialState: { items: [] as number[] },
      evolve: (state: { items: number[] }, { payload }: Added) => {
        state.items.push(payload)
        return state
      },
    })
    const [one, two] = [bench.newId(), bench.newId()]
    for (const n of [1, 2]) await changing.handle(one, () => plus(n))
    const first = await changing.load(one)
    first.state.items.push(99)
    const handled = await changing.handle(one, (state) => {
      state.items.length = 0
      return plus(3)
    })
    expect(handled.version).toBe(3)
    expect((await changing.load(one)).state).toEqual({ items: [1, 2, 3] })
    expect((await changing.load(two)).state).toEqual({ items: [] })
  })

  test('an initial state of a class is made for each load; an instance, which would be shared or lose its methods, is refused', async () => {
    const { events } = bench.open()
    class Basket {
      readonly items: number[] = []
      add(item: number): this {
        this.items.push(item)
        return this
      }
    }
    const kind = { type: 'basket', evolve: (state: Basket, { payload }: Added) => state.add(payload) }
    const baskets = events.aggregate({ ...kind, initialState: () => new Basket() })
    const [one, two] = [bench.newId(), bench.newId()]
    await baskets.handle(one, () => plus(1))
    expect((await baskets.load(one)).state).toEqual(Object.assign(new Basket(), { items: [1] }))
    expect((await baskets.load(two)).state.items).toEqual([])
    const holding = { deep: [{ basket: new Basket() }] }
    for (const initialState of [new Basket(), holding, { call: () => undefined }] as Basket[]) {
      const declare = (): unknown => events.aggregate({ ...kind, initialState })
      expect(declare).toThrow(/initialState of aggregate "basket" .* cannot be copied/)
      expect(declare).toThrow(expect.objectContaining({ code: 'invalid_option' }))
    }
    // Nothing of a declaration that is refused holds.
    expect((await baskets.load(one)).version).toBe(1)
  })

  test('the memory holds the states that were used last, and no more', async () => {
    const { events } = bench.open()
    const ids = [bench.newId(), bench.newId(), bench.newId()]
    const counted = counter()
    const sums = events.aggregate({ type: 'sum', initialState: nothing, hotMax: 2, ...counted })
    for (const id of ids) await events.append(`sum-${id}`, 0, plus(1))
    const load = async (index: number): Promise<number> => {
      const before = counted.evolved
      await sums.load(ids[index]!)
      return counted.evolved - before
    }
    expect([await load(0), await load(1), await load(0), await load(2)]).toEqual([1, 1, 0, 1])
    // 1 went, as the one that was not used for longest.
    expect([await load(0), await load(2), await load(1)]).toEqual([0, 0, 1])
  })

  test(
    'replay = snapshot + tail, for any stream, any distance and any moment',
    { retry: 0, timeout: 120_000 },
    async () => {
      const { events } = bench.open()
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.array(fc.nat(1_000), { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 12 }),
          fc.integer({ min: 1, max: 9 }),
          fc.integer({ min: 2, max: 97 }),
          fc.infiniteStream(fc.nat(3)),
          async (appends, snapshotEvery, factor, choices) => {
            const id = bench.newId()
            const evolve = (state: Sum, { payload }: Added): Sum => ({
              sum: (state.sum * factor + payload) % 1_000_003,
              count: state.count + 1,
            })
            const kind = { type: `p${factor}`, initialState: nothing, evolve }
            const known = events.aggregate({ ...kind, snapshotEvery })
            let model = nothing
            let version = 0
            for (const payloads of appends) {
              const choice = choices.next().value as number
              if (choice === 0) await known.handle(id, () => payloads.map(plus))
              else await events.append(`${kind.type}-${id}`, version, payloads.map(plus))
              version += payloads.length
              for (const payload of payloads) model = evolve(model, plus(payload))
              if (choice === 1) await events.settled()
              if (choice <= 2) expect(await known.load(id)).toMatchObject({ version, state: model })
            }
            await events.settled()
            const expected = { version, state: model }
            expect(await known.load(id)).toMatchObject(expected)
            expect(await events.aggregate({ ...kind, snapshotEvery }).load(id)).toMatchObject(expected)
            expect(await events.aggregate(kind).load(id)).toMatchObject(expected)
          },
        ),
        { numRuns: 40 },
      )
    },
  )

  test('a load with a snapshot reads as much for 10,000 events as for 100', async () => {
    const { events } = bench.open()
    const evolvedAt: number[] = []
    for (const count of [100, 10_000]) {
      const id = bench.newId()
      await events.append(
        `sum-${id}`,
        0,
        Array.from({ length: count }, (_, n) => plus(n)),
      )
      const kind = { type: 'sum', initialState: nothing, snapshotEvery: 100 } as const
      await events.aggregate({ ...kind, ...counter() }).load(id)
      await events.settled()
      await events.append(`sum-${id}`, count, [plus(1), plus(2)])
      const counted = counter()
      await events.aggregate({ ...kind, ...counted }).load(id)
      evolvedAt.push(counted.evolved)
    }
    expect(evolvedAt).toEqual([2, 2])
  })

  test('a role needs no right to any table', async () => {
    const { database } = bench
    await database().query(`select trunkline.grant_aggregates('app_user')`)
    const { events } = bench.open({ url: database().userUrl })
    const orders = events.aggregate({ ...order, snapshotEvery: 1 })
    const id = bench.newId()
    await orders.handle(id, () => [opened, added('a')])
    await events.settled()
    expect(await snapshotsOf(id, 'order')).toHaveLength(1)
    await expect(events.forget('x')).rejects.toMatchObject({ code: 'no_privilege' })
    const user = await database().connect('user')
    await expect(user.query('select from trunkline.subject_key')).rejects.toMatchObject({ code: '42501' })
    await expect(user.query('select from trunkline.aggregate_snapshot')).rejects.toMatchObject({ code: '42501' })
    await database().query(`select trunkline.grant_aggregates('app_user', may_forget => true)`)
    expect(await events.forget('x')).toEqual({ isNew: true, snapshots: 0 })
  })
})
