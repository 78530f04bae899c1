import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type Trunkline, VersionConflictError } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { backendPid, describeEachPostgres, terminateBackends, untilBackends, useDatabase } from '../support/index.ts'

describeEachPostgres('appends that share a transaction', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  function open(): Trunkline {
    const trunkline = createTrunkline({ url: database().url })
    onTestFinished(() => trunkline.stop())
    return trunkline
  }

  const event = (n: number): { type: string; payload: unknown } => ({ type: 'noted', payload: { n, text: '"\\ü' } })

  test('each gets its own result, and fewer transactions do it', async () => {
    const { events } = open()
    const results = await Promise.all(
      Array.from({ length: 100 }, async (_, n) => events.append(`shared-${n}`, 'no-stream', [event(n), event(n + 1)])),
    )
    for (const [n, result] of results.entries()) {
      const read = await events.read(`shared-${n}`)
      expect(read.map(({ payload }) => payload)).toEqual([event(n).payload, event(n + 1).payload])
      expect(result).toMatchObject({ stream: `shared-${n}`, fromVersion: 1, version: 2, isRepeated: false })
      expect(result.events.map(({ id, position }) => ({ id, position }))).toEqual(
        read.map(({ id, position }) => ({ id, position })),
      )
    }
    const [row] = await database().query<{ count: number }>(
      "select count(distinct xmin::text)::integer as count from trunkline.event where aggregate_type = 'shared'",
    )
    expect(row?.count).toBeLessThan(50)
  })

  test('what is wrong with one is told to nobody else', async () => {
    const { events } = open()
    await events.append('taken-1', 0, event(0))
    const outcomes = await Promise.allSettled([
      ...Array.from({ length: 10 }, async (_, n) => events.append(`fine-${n}`, 0, event(n))),
      events.append('taken-1', 0, event(1)),
      ...Array.from({ length: 10 }, async (_, n) => events.append(`fine-${10 + n}`, 0, event(n))),
    ])
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []))
    expect(failures).toEqual([expect.any(VersionConflictError)])
    expect(failures[0]).toMatchObject({ stream: 'taken-1', expected: 0, actual: 1 })
    for (let n = 0; n < 20; n += 1) expect(await events.read(`fine-${n}`)).toHaveLength(1)
  })

  test('of appends to one stream that expect the same version one wins; without a version all are written', async () => {
    const { events } = open()
    const racing = await Promise.allSettled(
      Array.from({ length: 30 }, async (_, n) => events.append('race-1', 0, event(n))),
    )
    expect(racing.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    const results = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => events.append('race-1', 'any', event(n))),
    )
    expect(results.map(({ version }) => version).toSorted((one, other) => one - other)).toEqual(
      Array.from({ length: 30 }, (_, n) => 2 + n),
    )
  })

  test('batches to one stream follow each other, after one that expects a version, and each is told its own place', async () => {
    const { events } = open()
    await events.append('mixed-1', 0, event(0))
    const sizes = [3, 1, 2, 5, 1]
    const results = await Promise.all([
      events.append('mixed-0', 'any', event(0)),
      ...sizes.map(async (size, index) =>
        events.append(
          'mixed-1',
          index === 0 ? 1 : (['any', 'stream-exists'] as const)[index % 2]!,
          Array.from({ length: size }, (_, n) => event(10 * index + n)),
        ),
      ),
      events.append('mixed-2', 'any', event(0)),
    ])
    const stored = await events.read('mixed-1')
    expect(stored.map(({ version }) => version)).toEqual(Array.from({ length: 13 }, (_, n) => n + 1))
    for (const [index, size] of sizes.entries()) {
      const result = results[1 + index]!
      expect(result.events).toHaveLength(size)
      expect(result.version - result.fromVersion).toBe(size - 1)
      for (const [n, { id, version, position }] of result.events.entries()) {
        expect(stored[version - 1]).toMatchObject({ id, position, payload: event(10 * index + n).payload })
      }
    }
  })

  test('a stream that somebody holds keeps nobody else waiting', async () => {
    const { events, pool } = open()
    const holder = await database().connect()
    await holder.query('begin')
    await holder.query(`select trunkline.append('held-1', 'no-stream', '{"type": "held"}')`)
    // More than may be under way at once, so that some would wait for it.
    const all = Array.from({ length: 40 }, async (_, n) => events.append(`free-${n}`, 0, event(n)))
    const held = events.append('held-1', 'any', event(0))
    const more = Array.from({ length: 40 }, async (_, n) => events.append(`free-${40 + n}`, 0, event(n)))
    await Promise.all([...all, ...more])
    await untilBackends(database(), { where: '$1 = any(pg_blocking_pids(pid))', values: [await backendPid(holder)] })
    await events.append('free-80', 0, event(80))
    await holder.query('commit')
    expect((await held).version).toBe(2)
    expect(pool.totalCount).toBeLessThanOrEqual(5)
  })

  test('a lost connection is an error, and the appends can be repeated', async () => {
    const { events, pool } = open()
    pool.on('error', () => undefined)
    const ids = Array.from({ length: 60 }, (_, n) => `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`)
    const all = async (): Promise<PromiseSettledResult<unknown>[]> =>
      Promise.allSettled(ids.map(async (id, n) => events.append(`again-${n}`, 0, { ...event(n), id })))
    const first = all()
    await terminateBackends(database(), { where: "query like '%append_events%'" })
    await first
    expect((await all()).filter(({ status }) => status === 'rejected')).toEqual([])
    for (const n of ids.keys()) expect(await events.read(`again-${n}`)).toHaveLength(1)
  })
})
