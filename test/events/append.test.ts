import pg from 'pg'
import { createPool, sql } from 'slonik'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import {
  createTrunkline,
  type EventStore,
  type ExpectedVersion,
  type NewEvent,
  type RecordedEvent,
  VersionConflictError,
} from '../../src/index.ts'
import { install } from '../log/captured.ts'
import {
  backendPid,
  describeEachPostgres,
  lacksPgBouncer,
  startPgBouncer,
  untilBlocked,
  useDatabase,
} from '../support/index.ts'

describeEachPostgres('appending', (server) => {
  const database = useDatabase(server)
  let lastStream = 0

  beforeAll(() => install(database().url))

  function open(): EventStore {
    const trunkline = createTrunkline({ url: database().url })
    onTestFinished(() => trunkline.stop())
    return trunkline.events
  }

  /** A stream that nobody else has. */
  function newStream(type = 'order'): string {
    lastStream += 1
    return `${type}-${server.version}-${lastStream}`
  }

  const created = { type: 'created', payload: { by: 'ü 😀', list: [1, null, '\\'] } } satisfies NewEvent

  function versions(events: readonly RecordedEvent[]): number[] {
    return events.map(({ version }) => version)
  }

  test('what is appended is read back as it was', async () => {
    const events = open()
    const stream = newStream()
    const id = '018F3A4C-0000-7000-8000-00000000000A'
    const result = await events.append(
      stream,
      'no-stream',
      [created, { type: 'paid', payload: null, schemaVersion: 3, id, metadata: { userId: 'me', deep: { a: [1] } } }],
      { correlationId: 'c', causationId: 'd', userId: 'u', traceparent: 't', metadata: { tenant: 7 } },
    )
    expect(result).toMatchObject({ stream, fromVersion: 1, version: 2, isRepeated: false })
    const read = await events.read(stream)
    const common = { correlationId: 'c', causationId: 'd', userId: 'u', traceparent: 't', tenant: 7 }
    expect(read).toEqual([
      {
        position: result.events[0]?.position,
        id: result.events[0]?.id,
        stream,
        aggregateType: 'order',
        aggregateId: stream.slice('order-'.length),
        version: 1,
        type: 'created',
        schemaVersion: 1,
        payload: created.payload,
        metadata: common,
        createdAt: read[0]?.createdAt,
      },
      {
        ...read[1],
        id: id.toLowerCase(),
        position: result.position,
        version: 2,
        type: 'paid',
        schemaVersion: 3,
        payload: null,
        metadata: { ...common, userId: 'me', deep: { a: [1] } },
      },
    ])
    expect(BigInt(read[1]!.position)).toBeGreaterThan(BigInt(read[0]!.position))
    expect(Math.abs(Date.now() - read[0]!.createdAt.getTime())).toBeLessThan(60_000)
  })

  test.each<[ExpectedVersion, number, boolean]>([
    [0, 0, true],
    [0, 1, false],
    [0n, 0, true],
    ['no-stream', 0, true],
    ['no-stream', 1, false],
    [1, 0, false],
    [2, 2, true],
    [2n, 2, true],
    [1, 2, false],
    [3, 2, false],
    ['stream-exists', 0, false],
    ['stream-exists', 2, true],
    ['any', 0, true],
    ['any', 2, true],
  ])('expected %s of a stream at version %i: %s', async (expected, actual, isAllowed) => {
    const events = open()
    const stream = newStream()
    for (let version = 0; version < actual; version += 1) await events.append(stream, version, created)
    for (const list of [[created], [created, created, created]]) {
      const before = versions(await events.read(stream)).length
      const appended = events.append(stream, expected === actual ? before : expected, list)
      if (isAllowed) {
        if (expected === 'no-stream' || typeof expected === 'bigint') {
          await expect(appended.then(({ fromVersion }) => fromVersion)).resolves.toBe(actual + 1)
          break
        }
        await expect(appended).resolves.toMatchObject({ fromVersion: before + 1, version: before + list.length })
      } else {
        await expect(appended).rejects.toMatchObject({
          name: 'VersionConflictError',
          code: 'version_conflict',
          retryable: true,
          stream,
          expected,
          actual,
        })
      }
    }
    const all = versions(await events.read(stream))
    expect(all).toEqual(all.map((_, index) => index + 1))
  })

  test('a later one of two that expect the same waits for the first, and wins only if that rolls back', async () => {
    const events = open()
    const [first, second] = [await database().connect(), await database().connect()]
    const pid = await backendPid(second)
    for (const [end, outcome] of [
      ['commit', 'version_conflict'],
      ['rollback', 'won'],
    ] as const) {
      const stream = newStream()
      await first.query('begin')
      await events.append(stream, 0, [created, created], { tx: first })
      const waiting = events.append(stream, 0, created, { tx: second }).then(
        () => 'won',
        (error: unknown) => (error as { code: string }).code,
      )
      await untilBlocked(database(), pid)
      await first.query(end)
      expect(await waiting).toBe(outcome)
    }
  })

  test('writers without an expected version queue, also behind one that has one', async () => {
    const events = open()
    const [first, second, third] = [await database().connect(), await database().connect(), await database().connect()]
    const pids = [await backendPid(second), await backendPid(third)]
    const stream = newStream()
    await events.append(stream, 0, created)
    await first.query('begin')
    await events.append(stream, 1, created, { tx: first })
    const waiting = [
      events.append(stream, 'any', [created, created], { tx: second }),
      events.append(stream, 'stream-exists', [created, created], { tx: third }),
    ]
    for (const pid of pids) await untilBlocked(database(), pid)
    await first.query('commit')
    const firstVersions = (await Promise.all(waiting)).map(({ fromVersion }) => fromVersion)
    expect(firstVersions.toSorted((a, b) => a - b)).toEqual([3, 5])
    expect(versions(await events.read(stream))).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('several streams in one transaction of pg and of slonik: all or none', async () => {
    const events = open()
    const client = await database().connect()
    const streams = [newStream(), newStream('invoice')]
    for (const end of ['rollback', 'commit']) {
      await client.query('begin')
      for (const stream of streams) await events.append(stream, 0, created, { tx: client })
      expect(await events.read(streams[0]!, { tx: client })).toHaveLength(1)
      expect(await events.read(streams[0]!)).toEqual([])
      await client.query(end)
    }
    const pool = await createPool(database().url)
    onTestFinished(() => pool.end())
    await expect(
      pool.transaction(async (tx) => {
        for (const stream of streams) await events.append(stream, 1, created, { tx })
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    await pool.transaction(async (tx) => {
      await tx.query(sql.unsafe`select 1`)
      for (const stream of streams) await events.append(stream, 1, created, { tx })
      expect(versions(await events.read(streams[0]!, { tx }))).toEqual([1, 2])
    })
    await expect(pool.connect((tx) => events.append(streams[0]!, 1, created, { tx }))).rejects.toMatchObject({
      code: 'version_conflict',
      actual: 2,
    })
    for (const stream of streams) expect(versions(await events.read(stream))).toEqual([1, 2])
  })

  test.each(['repeatable read', 'serializable'])(
    'in %s a stream that changed meanwhile is a conflict',
    async (level) => {
      const events = open()
      const client = await database().connect()
      for (const [expected, list] of [
        [1, [created]],
        ['any', [created, created]],
        ['stream-exists', [created]],
      ] as const) {
        const stream = newStream()
        await events.append(stream, 0, created)
        await client.query(`begin isolation level ${level}`)
        await client.query('select 1')
        await events.append(stream, 1, created)
        await expect(events.append(stream, expected, list, { tx: client })).rejects.toMatchObject({
          code: 'version_conflict',
          retryable: true,
        })
        await client.query('rollback')
        expect(versions(await events.read(stream))).toEqual([1, 2])
      }
    },
  )

  test('the same ids again: the first result, whatever has come after; nothing is written', async () => {
    const events = open()
    const stream = newStream()
    const batch = [1, 2, 3].map((n) => ({ type: 'added', payload: { n, 'ü\u0001': 1.5 }, id: crypto.randomUUID() }))
    const single = { ...created, id: crypto.randomUUID() }
    const [first, other] = [await events.append(stream, 0, batch), await events.append(stream, 3, single)]
    await events.append(stream, 4, created)
    for (const expected of [0, 'any', 'stream-exists', 'no-stream', 3, 5, 99] as const) {
      expect(await events.append(stream, expected, batch)).toEqual({ ...first, isRepeated: true })
      expect(await events.append(stream, expected, single)).toEqual({ ...other, isRepeated: true })
    }
    expect(await events.append(stream, 5, { ...single, metadata: { traceparent: 'another' } })).toMatchObject({
      isRepeated: true,
    })
    expect(versions(await events.read(stream))).toEqual([1, 2, 3, 4, 5])
  })

  test('the same ids with anything else are refused, and nothing of it is written', async () => {
    const events = open()
    const [stream, other] = [newStream(), newStream()]
    const batch = [1, 2, 3].map((n) => ({ type: 'added', payload: { n }, id: crypto.randomUUID() }))
    await events.append(stream, 0, batch)
    await events.append(other, 0, created)
    const [one, two, three] = batch as [NewEvent, NewEvent, NewEvent]
    const wrong: [string, NewEvent[]][] = [
      [stream, [one, two, { ...three, payload: { n: 4 } }]],
      [stream, [one, two, { ...three, type: 'removed' }]],
      [stream, [one, two, { ...three, schemaVersion: 2 }]],
      [stream, [two, one, three]],
      [stream, [one, three]],
      [stream, [one, two, three, created]],
      [stream, [created, three]],
      [other, batch],
      [other, [created, one]],
    ]
    for (const [target, list] of wrong) {
      for (const expected of ['any', target === stream ? 3 : 1, 0] as const) {
        const refused = events.append(target, expected, list)
        await expect(refused).rejects.toMatchObject({ code: 'event_id_taken', retryable: false })
        await expect(refused).rejects.toThrow(target)
      }
    }
    // Part of the first append is the same append by halves.
    await expect(events.append(stream, 'any', [one, two])).resolves.toMatchObject({ isRepeated: true, version: 2 })
    expect(await events.read(stream)).toHaveLength(3)
    expect(await events.read(other)).toHaveLength(1)
  })

  test('a version conflict costs no connection', async () => {
    const pool = new pg.Pool({ connectionString: database().url, max: 1 })
    onTestFinished(() => pool.end())
    let connections = 0
    pool.on('connect', () => (connections += 1))
    const { events } = createTrunkline({ pool })
    const stream = newStream()
    await events.append(stream, 0, created)
    for (let n = 0; n < 3; n += 1) {
      await expect(events.append(stream, 0, created)).rejects.toBeInstanceOf(VersionConflictError)
    }
    await Promise.allSettled(Array.from({ length: 8 }, () => events.append(stream, 1, created)))
    expect(connections).toBe(1)
  })

  test('where prepared statements get lost, the statement is sent again without', async () => {
    const pool = new pg.Pool({ connectionString: database().url, max: 1 })
    onTestFinished(() => pool.end())
    const { events } = createTrunkline({ pool })
    const stream = newStream()
    await events.append(stream, 0, created)
    await pool.query('deallocate all')
    expect(await events.append(stream, 1, created)).toMatchObject({ version: 2, isRepeated: false })
    await pool.query('deallocate all')
    expect(versions(await events.read(stream))).toEqual([1, 2])
    expect(await pool.query('select from pg_prepared_statements')).toMatchObject({ rowCount: 0 })
  })

  test.skipIf(lacksPgBouncer())('through a pooler in transaction mode', async () => {
    await using pooler = await startPgBouncer(database(), { poolSize: 2 })
    const stores = [1, 2, 3].map(() => {
      const trunkline = createTrunkline({ url: pooler.url, listenUrl: false })
      onTestFinished(() => trunkline.stop())
      return trunkline.events
    })
    const stream = newStream()
    await Promise.all(
      stores.map(async (events) => {
        for (let n = 0; n < 20; n += 1) {
          await events.append(stream, 'any', created)
          await events.read(stream)
        }
      }),
    )
    expect(versions(await stores[0]!.read(stream))).toEqual(Array.from({ length: 60 }, (_, n) => n + 1))
  })
})
