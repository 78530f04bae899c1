import { beforeAll, expect, onTestFinished, test } from 'vitest'
import {
  createTrunkline,
  type EventExtension,
  type EventStore,
  type NewEvent,
  type RecordedEvent,
} from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

describeEachPostgres('reading events', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  function open(): EventStore {
    const trunkline = createTrunkline({ url: database().url })
    onTestFinished(() => trunkline.stop())
    return trunkline.events
  }

  function numbered(count: number, type = 'counted'): NewEvent[] {
    return Array.from({ length: count }, (_, n) => ({ type, payload: { n: n + 1 } }))
  }

  const versions = (events: readonly RecordedEvent[]): number[] => events.map(({ version }) => version)
  const range = (from: number, to: number): number[] =>
    Array.from({ length: Math.abs(to - from) + 1 }, (_, n) => (to < from ? from - n : from + n))

  test('by versions, forward and backward, in a list and one by one', async () => {
    const events = open()
    await events.append('range-1', 0, numbered(5_000))
    expect(versions(await events.read('range-1'))).toEqual(range(1, 5_000))
    expect(versions(await events.read('range-1', { direction: 'backward' }))).toEqual(range(5_000, 1))
    expect(versions(await events.read('range-1', { fromVersion: 2_001, toVersion: 4_200 }))).toEqual(
      range(2_001, 4_200),
    )
    expect(versions(await events.read('range-1', { toVersion: 7, limit: 3, direction: 'backward' }))).toEqual([7, 6, 5])
    expect(versions(await events.read('range-1', { fromVersion: 4_999, limit: 9 }))).toEqual([4_999, 5_000])
    expect(await events.read('range-1', { fromVersion: 6_000 })).toEqual([])
    expect(await events.read('range-none')).toEqual([])
    const seen: number[] = []
    for await (const { version } of events.read('range-1')) {
      seen.push(version)
      if (version === 2_500) break
    }
    expect(seen).toEqual(range(1, 2_500))
  })

  test('as it was at a time: what a Date of an event says includes it', async () => {
    const events = open()
    for (let version = 0; version < 4; version += 1) {
      await events.append('time-1', version, numbered(2)).catch(() => events.append('time-1', 'any', numbered(2)))
      await database().query('select pg_sleep(0.002)')
    }
    const all = await events.read('time-1')
    expect(all).toHaveLength(8)
    for (const { createdAt, version } of all) {
      const then = await events.read('time-1', { asOf: createdAt })
      expect(versions(then)).toEqual(range(1, version + (version % 2)))
      expect(versions(await events.read('time-1', { asOf: createdAt.toISOString(), toVersion: 1 }))).toEqual([1])
    }
    expect(await events.read('time-1', { asOf: '2020-01-01' })).toEqual([])
    expect(await events.read('time-1', { asOf: 'tomorrow' })).toHaveLength(8)
    await expect(events.read('time-1', { asOf: 'no time' })).rejects.toThrow(/no time/)
  })

  test('time never goes back within a stream, whatever the clock of the server does', async () => {
    const events = open()
    await events.append('clock-1', 0, numbered(1))
    const client = await database().connect('admin')
    // The clock is put back: the last event lies in the future.
    await client.query(
      `insert into trunkline.event (id, aggregate_type, aggregate_id, version, type, payload, created_at)
       values (trunkline.event_id(), 'clock', '1', 2, 'counted', 'null', now() + interval '1 hour')`,
    )
    await events.append('clock-1', 2, numbered(2))
    await events.append('clock-1', 'any', numbered(1))
    const times = (await events.read('clock-1')).map(({ createdAt }) => createdAt.getTime())
    expect(times).toEqual(times.toSorted((a, b) => a - b))
    expect(times.slice(1)).toEqual(Array.from({ length: 4 }, () => times[1]))
  })

  test('large payloads come in pages that end early', async () => {
    const events = open()
    const text = Array.from({ length: 300_000 }, () => Math.random().toString(36).slice(2, 12)).join('')
    for (let n = 0; n < 12; n += 1) await events.append('large-1', n, { type: 'grown', payload: { n, text } })
    const pages: number[] = []
    for await (const page of events.read('large-1').pages()) pages.push(page.length)
    expect(pages.length).toBeGreaterThan(1)
    expect(versions(await events.read('large-1'))).toEqual(range(1, 12))
    expect((await events.read('large-1', { direction: 'backward', limit: 1 }))[0]?.payload).toEqual({ n: 11, text })
    expect(versions(await events.readAll({ categories: ['large'] }))).toEqual(range(1, 12))
  }, 60_000)

  test('texts that JSON and SQL could trip over', async () => {
    const events = open()
    const payload = { 'a"b': '\\ \u0001 \u2028 😀 \' $1 :"schema"', n: 123456789012345, deep: [[[{}]]], e: '' }
    for (const stream of ['quote-a"b\\', "quote-it's", 'quote', { type: 'quote', id: '-x-' }]) {
      await events.append(stream, 0, { type: 'it\'s "so"\\', payload, metadata: { 'k"': 'v\n' } })
      const [event] = await events.read(stream)
      expect(event).toMatchObject({ type: 'it\'s "so"\\', payload, metadata: { 'k"': 'v\n' }, version: 1 })
      expect(await events.read(event!.stream)).toEqual([event])
      expect(await events.query({ stream })).toEqual([event])
    }
  })

  test('audit: by aggregate, type, time and metadata', async () => {
    const events = open()
    const before = new Date()
    await events.append('audit-1', 0, numbered(2), { userId: 'u1', metadata: { tenant: { id: 1, name: 'x' } } })
    await events.append('audit-2', 0, numbered(2, 'other'), { userId: 'u2' })
    await events.append('audits-1', 0, numbered(300), { userId: 'u1' })
    const names = async (query: Parameters<EventStore['query']>[0]): Promise<string[]> =>
      (await events.query({ aggregateType: 'audit', ...query })).map(({ stream, version }) => `${stream}/${version}`)
    expect(await names({})).toEqual(['audit-1/1', 'audit-1/2', 'audit-2/1', 'audit-2/2'])
    expect(await names({ direction: 'backward', limit: 3 })).toEqual(['audit-2/2', 'audit-2/1', 'audit-1/2'])
    expect(await names({ aggregateId: '2' })).toEqual(['audit-2/1', 'audit-2/2'])
    expect(await names({ stream: 'audit-1' })).toEqual(['audit-1/1', 'audit-1/2'])
    expect(await names({ types: ['other'] })).toEqual(['audit-2/1', 'audit-2/2'])
    expect(await names({ metadata: { tenant: { id: 1 } } })).toEqual(['audit-1/1', 'audit-1/2'])
    expect(await names({ from: before, to: 'tomorrow' })).toHaveLength(4)
    expect(await names({ to: before })).toEqual([])
    expect(await events.query({ metadata: { userId: 'u1' } })).toHaveLength(302)
    expect(await events.query({ aggregateType: 'audits', direction: 'backward' })).toHaveLength(300)
  })

  test('a query whose conditions no event can meet gives none', async () => {
    const events = open()
    await events.append('both-1', 'any', numbered(2))
    expect(await events.query({ stream: 'both-1', aggregateType: 'both', aggregateId: '1' })).toHaveLength(2)
    expect(await events.query({ stream: 'both-1', aggregateType: 'other' })).toEqual([])
    expect(await events.query({ stream: 'both-1', aggregateId: '2' })).toEqual([])
  })

  test('streams, by name', async () => {
    const events = open()
    const ids = Array.from({ length: 25 }, (_, n) => String(n))
    await Promise.all(ids.map((id) => events.append({ type: 'named', id }, 'any', numbered(Number(id) + 1))))
    await events.append('named', 'any', numbered(1))
    const found = await Array.fromAsync(events.streams({ category: 'named' }))
    expect(Object.fromEntries(found.map(({ stream, version }) => [stream, version]))).toEqual({
      named: 1,
      ...Object.fromEntries(ids.map((id) => [`named-${id}`, Number(id) + 1])),
    })
    expect(found).toHaveLength(26)
    expect(found[3]?.firstAt).toBeInstanceOf(Date)
    expect(await Array.fromAsync(events.streams({ category: 'named', limit: 7 }))).toEqual(found.slice(0, 7))
    const all = await Array.fromAsync(events.streams())
    expect(new Set(all.map(({ stream }) => stream)).size).toBe(all.length)
  })

  test('extensions see what goes in and out, and share the transaction', async () => {
    const events = open()
    await database().query('create table if not exists told (stream text, version bigint)')
    const seen: string[] = []
    const extension: EventExtension = {
      beforeWrite: (list) => list.map((event) => ({ ...event, payload: { sealed: event.payload } })),
      afterRead: (list) =>
        list.flatMap((event) =>
          event.type === 'dropped' ? [] : [{ ...event, payload: (event.payload as { sealed: unknown }).sealed }],
        ),
      isWanted: (stream) => stream.startsWith('ext-'),
      inTransaction: async (tx, recorded) => {
        for (const { stream, version, type } of recorded) {
          seen.push(`${stream}/${version}`)
          await tx.query('insert into told values ($1, $2)', [stream, version])
          if (type === 'poison') throw new Error('not with me')
        }
      },
    }
    events.use(extension)
    await events.append('ext-1', 0, [
      { type: 'kept', payload: 1 },
      { type: 'dropped', payload: 2 },
    ])
    await expect(events.append('ext-1', 2, { type: 'poison', payload: 3 })).rejects.toThrow('not with me')
    expect(await events.append('ext-1', 2, { type: 'kept', payload: 4 })).toMatchObject({ version: 3 })
    expect((await events.read('ext-1')).map(({ version, payload }) => [version, payload])).toEqual([
      [1, 1],
      [3, 4],
    ])
    expect(await open().read('ext-1')).toMatchObject([{ payload: { sealed: 1 } }, {}, { payload: { sealed: 4 } }])
    expect(await database().query('select * from told order by version')).toEqual([
      { stream: 'ext-1', version: '1' },
      { stream: 'ext-1', version: '2' },
      { stream: 'ext-1', version: '3' },
    ])
    expect(seen).toEqual(['ext-1/1', 'ext-1/2', 'ext-1/3', 'ext-1/3'])
  })

  test.each<[string, (events: EventStore) => PromiseLike<unknown>, string, RegExp]>([
    ['no stream', (e) => e.append('', 0, numbered(1)), 'invalid_stream', /""/],
    ['a type with a dash', (e) => e.append({ type: 'a-b', id: '1' }, 0, numbered(1)), 'invalid_stream', /a-b/],
    ['a long name', (e) => e.append(`x-${'y'.repeat(2_000)}`, 0, numbered(1)), 'invalid_stream', /1000 bytes/],
    ['no events', (e) => e.append('bad-1', 0, []), 'invalid_event', /bad-1: there are 0/],
    ['a version below 0', (e) => e.append('bad-1', -1, numbered(1)), 'invalid_expected_version', /bad-1.*-1/],
    ['half a version', (e) => e.append('bad-1', 1.5, numbered(1)), 'invalid_expected_version', /1\.5/],
    ['no number', (e) => e.append('bad-1', Number.NaN, numbered(1)), 'invalid_expected_version', /bad-1.*NaN/],
    ['a version past all', (e) => e.append('bad-1', 10n ** 30n, numbered(1)), 'invalid_expected_version', /bad-1.*0n/],
    ['an object', (e) => e.append('bad-1', { at: 5n } as never, numbered(1)), 'invalid_expected_version', /bad-1.*5n/],
    [
      'an id that is a bigint',
      (e) => e.append({ type: 'bad', id: 17n as never }, 0, numbered(1)),
      'invalid_stream',
      /17n/,
    ],
    ['another word', (e) => e.append('bad-1', 'new' as 'any', numbered(1)), 'invalid_expected_version', /"new"/],
    [
      'no type',
      (e) => e.append('bad-1', 0, [...numbered(1), { type: '', payload: 1 }]),
      'invalid_event',
      /bad-1, event 2/,
    ],
    [
      'no payload',
      (e) => e.append('bad-1', 0, { type: 'a', payload: undefined }),
      'invalid_event',
      /bad-1, event 1 \(a\): payload is undefined/,
    ],
    [
      'NaN',
      (e) => e.append('bad-1', 0, { type: 'a', payload: { b: [NaN] } }),
      'invalid_event',
      /\(a\): payload\.b\[0\] is NaN/,
    ],
    [
      'no uuid',
      (e) => e.append('bad-1', 0, { type: 'a', payload: 1, id: '7' }),
      'invalid_event',
      /event 1 \(a\) has the id "7"/,
    ],
    [
      'form 0',
      (e) => e.append('bad-1', 0, { type: 'a', payload: 1, schemaVersion: 0 }),
      'invalid_event',
      /schemaVersion 0/,
    ],
    [
      'a form that is a bigint',
      (e) => e.append('bad-1', 0, { type: 'a', payload: 1, schemaVersion: 2n as never }),
      'invalid_event',
      /bad-1, event 1 \(a\).*2n/,
    ],
    [
      'a bad limit',
      (e) => Promise.resolve().then(() => e.read('bad-1', { limit: 0 })),
      'invalid_option',
      /bad-1: limit is 0/,
    ],
    [
      'a version to read from that is a bigint',
      (e) => Promise.resolve().then(() => e.read('bad-1', { fromVersion: 5n as never })),
      'invalid_option',
      /bad-1: fromVersion is 5n/,
    ],
    ['no time', (e) => e.read('bad-1', { asOf: 'last week' }), 'invalid_option', /bad-1.*last week/],
    ['no time of a query', (e) => e.query({ from: '2026-02-31' }), 'invalid_option', /2026-02-31/],
    [
      'a bad number of streams',
      (e) => Array.fromAsync(e.streams({ limit: Number.NaN })),
      'invalid_option',
      /limit is NaN/,
    ],
    [
      'a bad position',
      (e) => Promise.resolve().then(() => e.readAll({ after: '1/x' })),
      'invalid_option',
      /after is "1\/x"/,
    ],
    [
      'a date that is none',
      (e) => e.append('bad-1', 0, { type: 'a', payload: { at: new Date(Number.NaN) } }),
      'invalid_event',
      /bad-1, event 1 \(a\): payload\.at is an invalid Date/,
    ],
    [
      'metadata with a date that is none',
      (e) => e.append('bad-1', 0, { type: 'a', payload: 1, metadata: { at: new Date(Number.NaN) } }),
      'invalid_event',
      /metadata\.at is an invalid Date/,
    ],
    [
      'a list with a place that was never filled',
      (e) => e.append('bad-1', 0, { type: 'a', payload: [1].concat(Array(1)) }),
      'invalid_event',
      /payload\[1\] is undefined/,
    ],
    [
      'what nobody awaited',
      (e) =>
        e.append('bad-1', 0, [
          { type: 'a', payload: 1 },
          { type: 'b', payload: { all: Promise.resolve(1) } },
        ]),
      'invalid_event',
      /bad-1, event 2 \(b\): payload\.all is a Promise/,
    ],
    [
      'a time that PostgreSQL has no word for',
      (e) => e.read('bad-1', { asOf: new Date(8.64e15) }),
      'invalid_option',
      /bad-1: .*275760/,
    ],
    [
      'a direction of a query',
      (e) => Promise.resolve().then(() => e.query({ direction: 'up' as never })),
      'invalid_option',
      /Querying events: direction is "up"/,
    ],
    [
      'a type of aggregates that is no text',
      (e) => Promise.resolve().then(() => e.query({ aggregateType: 5 as never })),
      'invalid_option',
      /aggregateType is 5/,
    ],
    [
      'a type that no text of PostgreSQL is',
      (e) => Promise.resolve().then(() => e.query({ types: ['a\0'] })),
      'invalid_option',
      /types is no list of texts/,
    ],
    [
      'metadata of a query that is no object',
      (e) => Promise.resolve().then(() => e.query({ metadata: 'x' as never })),
      'invalid_option',
      /metadata is "x"/,
    ],
    [
      'a category that is no text',
      (e) => Array.fromAsync(e.streams({ category: 5 as never })),
      'invalid_option',
      /category is 5/,
    ],
    [
      'to publish what is no list',
      (e) => e.publish('order' as never),
      'invalid_option',
      /categories is no list of texts/,
    ],
  ])('refuses %s, and writes nothing', async (_, call, code, message) => {
    const events = open()
    const refused = call(events)
    await expect(refused).rejects.toMatchObject({ code, name: 'InvalidInputError' })
    await expect(call(events)).rejects.toThrow(message)
    expect(await events.read('bad-1')).toEqual([])
  })
})
