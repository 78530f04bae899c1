import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type EventStore, type RecordedEvent } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { describeEachPostgres, eventually, useDatabase } from '../support/index.ts'
import type { ReaderProcessOptions } from './reader-process.ts'
import { randomOf, write } from './workload.ts'

/** How many events the property test writes. */
const eventsMax = Number(process.env['TRUNKLINE_TEST_EVENTS'] ?? 3_000)
const seed = Number(process.env['TRUNKLINE_TEST_SEED'] ?? Date.now() % 100_000)

describeEachPostgres('the order of all events', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  function open(): EventStore {
    const trunkline = createTrunkline({ url: database().url, pollIntervalMs: 100 })
    onTestFinished(() => trunkline.stop())
    return trunkline.events
  }

  const event = { type: 'happened', payload: null }

  async function stored(): Promise<string[]> {
    const rows = await database().query<{ position: string }>(
      'select e.position::text from trunkline.event as e order by e.position',
    )
    return rows.map(({ position }) => position)
  }

  /** Reads on until told otherwise, then until it has all. `restartEvery`: pages after which it goes on from its checkpoint as a new reader. */
  function follow(events: EventStore, random: () => number, restartEvery = Infinity): () => Promise<RecordedEvent[]> {
    let isEnding = false
    const read = async (): Promise<RecordedEvent[]> => {
      const seen: RecordedEvent[] = []
      let reader = events.settledReader()
      let after = 0n
      const waiter = events.signal.subscribe()
      for (let pages = 1; ; pages += 1) {
        const wasEnding = isEnding
        const page = await reader.next(after, 1 + Math.floor(random() * 100))
        seen.push(...page.events)
        after = page.upTo
        if (pages % restartEvery === 0) reader = events.settledReader()
        if (page.hasMore) continue
        if (wasEnding && page.isLevel) break
        await waiter.wait()
      }
      waiter.end()
      return seen
    }
    const reading = read()
    return () => {
      isEnding = true
      return reading
    }
  }

  /** Starts a reader, kills it again and again, and gives what it has copied in the end. */
  function killAndRestart(random: () => number): () => Promise<string[]> {
    let isEnding = false
    let kills = 0
    const options: ReaderProcessOptions = { url: database().url }
    const start = () =>
      spawn(process.execPath, [join(import.meta.dirname, 'reader-process.ts'), JSON.stringify(options)], {
        stdio: ['ignore', 'inherit', 'inherit'],
      })
    const copied = async (): Promise<string[]> =>
      (await database().query<{ position: string }>('select position::text from copied order by place')).map(
        ({ position }) => position,
      )
    const run = async (): Promise<string[]> => {
      for (;;) {
        const child = start()
        const exited = once(child, 'exit')
        onTestFinished(async () => {
          child.kill('SIGKILL')
          await exited
        })
        const before = (await copied()).length
        await eventually(async () => (await copied()).length > before + random() * 100 || isEnding, {
          timeoutMs: 600_000,
        })
        if (isEnding && kills > 0) {
          const all = (await stored()).length
          await eventually(async () => (await copied()).length >= all, { timeoutMs: 120_000 })
          return copied()
        }
        child.kill('SIGKILL')
        await exited
        kills += 1
      }
    }
    const running = run()
    return () => {
      isEnding = true
      return running
    }
  }

  test(
    `every reader gets each of ${eventsMax} events once, in one order, versions in order (seed ${seed})`,
    { retry: 0, timeout: 60_000 + eventsMax * 60 },
    async () => {
      // PREPARE TRANSACTION is refused after a NOTIFY.
      await database().query(`select trunkline.set_wake('off')`)
      await database().query('create table copied (place bigserial primary key, position bigint not null)')
      await database().query('create table checkpoint as select 0::bigint as position')
      const random = randomOf(seed)
      const events = open()
      const readers = [
        follow(events, random),
        follow(open(), random),
        follow(open(), random, 3),
        follow(open(), random, 1),
      ]
      const killed = killAndRestart(random)
      const gone = await write({ database: database(), events, writers: 24, eventsMax, random })
      const seen = await Promise.all(readers.map((end) => end()))
      const copied = await killed()
      const all = await stored()
      expect(all.length).toBeGreaterThan(eventsMax / 2)
      expect(Object.keys(gone).toSorted()).toEqual([
        'earlyXid',
        'expecting',
        'plain',
        'prepared',
        'rolledBack',
        'savepoint',
        'several',
      ])
      for (const list of seen) expect(list.map(({ position }) => position)).toEqual(all)
      expect(copied).toEqual(all)
      const replay = await open().readAll()
      expect(replay).toEqual(seen[0])
      const versions = new Map<string, number>()
      for (const { stream, version } of replay) {
        expect(version).toBe((versions.get(stream) ?? 0) + 1)
        versions.set(stream, version)
      }
      await database().query(`select trunkline.set_wake('elided')`)
    },
  )

  test('an open writer holds back what comes after it, a prepared one too, and no foreign transaction does', async () => {
    const events = open()
    const reader = events.settledReader()
    const start = (await events.append('before-1', 'any', event)).position
    const [writer, foreign] = [await database().connect(), await database().connect()]
    await foreign.query('begin')
    await foreign.query('create table foreign_work (n int)')
    for (const end of ['commit', 'rollback', 'prepare']) {
      const [last] = await events.query({ direction: 'backward', limit: 1 })
      const after = BigInt(last?.position ?? start)
      await writer.query('begin')
      const held = await events.append('held-1', 'any', event, { tx: writer })
      const later = [await events.append('later-1', 'any', event), await events.append('later-2', 'any', event)]
      // Twice: a reader that has met the gap before, and one that has not.
      for (const each of [reader, reader, events.settledReader()]) {
        expect(await each.next(after, 10)).toMatchObject({ events: [], upTo: after, isLevel: false, hasMore: false })
      }
      if (end === 'prepare') {
        await writer.query(`prepare transaction 'held'`)
        for (const each of [reader, reader, events.settledReader()]) {
          expect(await each.next(after, 10)).toMatchObject({ events: [], upTo: after, isLevel: false })
        }
        await writer.query(`commit prepared 'held'`)
      } else await writer.query(end)
      const expected = [...(end === 'rollback' ? [] : [held]), ...later].map(({ position }) => position)
      for (const each of [reader, events.settledReader()]) {
        const page = await each.next(after, 10)
        expect(page.events.map(({ position }) => position)).toEqual(expected)
        expect(page).toMatchObject({ upTo: BigInt(later[1]!.position), isLevel: true, hasMore: false })
      }
    }
    await foreign.query('rollback')
  })

  test('a page ends where asked, and by types and categories it goes on over what is not wanted', async () => {
    const events = open()
    const first = await events.append('wanted-1', 'any', [event, { ...event, type: 'rare' }, event])
    await events.append('other-1', 'any', [event, { ...event, type: 'rare' }])
    const last = await events.append('wanted-2', 'any', event)
    const after = BigInt(first.events[0]!.position) - 1n
    const typesOf = (list: readonly RecordedEvent[]) => list.map(({ stream, type }) => `${stream} ${type}`)
    const reader = events.settledReader({ types: ['rare'], categories: ['wanted', 'nobody'] })
    const page = await reader.next(after, 1)
    expect(typesOf(page.events)).toEqual(['wanted-1 rare'])
    expect(page).toMatchObject({ hasMore: false, upTo: BigInt(last.position), isLevel: true })
    const happened = events.settledReader({ types: ['happened'], categories: ['wanted'] })
    const cut = await happened.next(after, 2)
    expect(typesOf(cut.events)).toEqual(['wanted-1 happened', 'wanted-1 happened'])
    expect(cut).toMatchObject({ hasMore: true, isLevel: false })
    const rest = await happened.next(cut.upTo, 2)
    expect(typesOf(rest.events)).toEqual(['wanted-2 happened'])
    expect(rest).toMatchObject({ hasMore: false, upTo: BigInt(last.position), isLevel: true })
    expect(typesOf(await events.readAll({ after, categories: ['wanted'] }))).toEqual([
      'wanted-1 happened',
      'wanted-1 rare',
      'wanted-1 happened',
      'wanted-2 happened',
    ])
    expect(typesOf(await events.readAll({ after, types: ['rare'] }))).toEqual(['wanted-1 rare', 'other-1 rare'])
    expect(await events.readAll({ after, limit: 2 })).toHaveLength(2)
    expect((await events.settledReader().next(after, 4)).events).toHaveLength(4)
  })

  test('a reader that sleeps is woken by a commit; nobody notifies one that is awake', async () => {
    const trunkline = createTrunkline({ url: database().url, pollIntervalMs: 600_000 })
    onTestFinished(() => trunkline.stop())
    const { events } = trunkline
    const waiter = events.signal.subscribe()
    await eventually(() => events.signal.isAsleep, { what: 'it sleeps' })
    const reader = events.settledReader()
    let after = (await reader.next(0n, 10_000)).upTo
    for (let n = 0; n < 5; n += 1) {
      await eventually(() => events.signal.isAsleep, { what: 'it sleeps again' })
      const { position } = await events.append('wake-1', 'any', event)
      await eventually(
        async () => {
          await waiter.wait()
          after = (await reader.next(after, 10)).upTo
          return after >= BigInt(position)
        },
        { what: 'it has read the event' },
      )
    }
    waiter.end()
  })
})
