import { mkdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { FileSink } from '../../src/sinks/index.ts'
import { scratchDirectory } from '../sinks/scratch.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { emitAll, failing, linesFormat, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

const poison = (payload: unknown): boolean => payload === 'poison'

describeEachPostgres('relay: failures', (server) => {
  test('a failing delivery holds back its own key only, in order, until it works', async () => {
    const database = await prepareDatabase(server)
    let isBroken = true
    const sink = new RecordingSink({
      batchSizeMax: 10,
      judge: ({ change }) => (isBroken && change.payload === 'a1' ? failing('receiver_unavailable', true) : undefined),
    })
    const relay = open(database.url).relay(quick({ sink, attemptsMax: 1_000 }))
    await relay.start()
    const retries = new Set<number>()
    relay.on('retry', ({ attempts }) => retries.add(attempts))
    await emitAll(database, [
      ['a', 'a1'],
      ['b', 'b1'],
      ['a', 'a2'],
      ['c', 'c1'],
      ['a', 'a3'],
      ['b', 'b2'],
    ])
    await eventually(() => sink.of('b').length === 2 && sink.of('c').length === 1, { what: 'the others arrive' })
    await emitAll(database, [['a', 'a4']])
    await eventually(() => retries.size > 2, { what: 'it is attempted again' })
    expect(sink.of('a')).toEqual([])
    // The checkpoint has gone on behind it.
    await eventually(
      async () => {
        const [row] = await database.query<{ n: string }>(
          `select count(*)::text as n from trunkline.failed_delivery as d join trunkline.relay_place as s on s.slot = d.slot
           where trunkline.is_covered(s.position, d.log_id, d.xid)`,
        )
        return row?.n === '4'
      },
      { what: 'all four of the key are stored, behind the checkpoint' },
    )
    isBroken = false
    await relay.drained()
    expect(sink.of('a')).toEqual(['a1', 'a2', 'a3', 'a4'])
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
    expect(sink.overlaps).toEqual([])
    await emitAll(database, [['a', 'a5']])
    await relay.drained()
    expect(sink.of('a')).toEqual(['a1', 'a2', 'a3', 'a4', 'a5'])
  })

  test('after so many attempts it is a dead letter, and the key goes on', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink({
      judge: ({ change }) => (poison(change.payload) ? failing('receiver_unavailable', true) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, attemptsMax: 3 }))
    const dead: unknown[] = []
    relay.on('dead-letter', ({ attempts, error, delivery }) => dead.push([attempts, error.code, delivery.key]))
    await relay.start()
    await emitAll(database, [
      ['a', 1],
      ['a', 'poison'],
      ['a', 2],
    ])
    await relay.drained()
    expect(sink.of('a')).toEqual([1, 2])
    expect(dead).toEqual([[3, 'receiver_unavailable', 'a']])
    const [letter] = await trunkline.deadLetters.list()
    expect(letter).toMatchObject({
      relay: 'test',
      topic: 'order',
      key: 'a',
      attempts: 3,
      holds: false,
      errorCode: 'receiver_unavailable',
      error: 'It fails with receiver_unavailable.',
    })
    expect(letter!.firstAttemptAt!.getTime()).toBeLessThan(letter!.lastAttemptAt!.getTime())
    expect(JSON.parse((await trunkline.deadLetters.show(letter!.id)).change)).toMatchObject({
      messageId: letter!.messageId,
      payload: 'poison',
    })
  })

  test('what no retry can mend is a dead letter at once; redriven, it is attempted anew; discarded, it is gone', async () => {
    const database = await prepareDatabase(server)
    let isMended = false
    const sink = new RecordingSink({
      judge: ({ change }) => (poison(change.payload) && !isMended ? failing('receiver_refused', false) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink }))
    await relay.start()
    await emitAll(database, [
      ['a', 'poison'],
      ['a', 1],
      [null, 'poison'],
      [null, 2],
    ])
    await relay.drained()
    expect(sink.attempts).toHaveLength(4)
    expect(sink.of('a')).toEqual([1])
    const letters = await trunkline.deadLetters.list({ relay: 'test' })
    expect(letters.map(({ key, attempts }) => [key, attempts])).toEqual([
      ['a', 1],
      [null, 1],
    ])
    await expect(trunkline.deadLetters.redrive({ ids: [letters[0]!.id, '99999'] })).rejects.toMatchObject({
      code: 'unknown_dead_letter',
    })
    expect(await trunkline.deadLetters.list()).toHaveLength(2)
    isMended = true
    expect(await trunkline.deadLetters.redrive({ ids: [letters[0]!.id] })).toBe(1)
    await relay.drained()
    expect(sink.of('a')).toEqual([1, 'poison'])
    expect(await trunkline.deadLetters.discard({ relay: 'test' })).toBe(1)
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
  })

  test('hold: the key waits for its dead letter, others do not', async () => {
    const database = await prepareDatabase(server)
    let isMended = false
    const sink = new RecordingSink({
      batchSizeMax: 5,
      judge: ({ change }) => (poison(change.payload) && !isMended ? failing('receiver_refused', false) : undefined),
    })
    const trunkline = open(database.url)
    const options = quick({ sink, onDeadLetter: 'hold' })
    const relay = trunkline.relay(options)
    await relay.start()
    await emitAll(database, [
      ['a', 'poison'],
      ['a', 1],
      ['b', 1],
      ['a', 2],
    ])
    expect(await relay.drained()).toBe(true)
    expect([sink.of('a'), sink.of('b')]).toEqual([[], [1]])
    // It is remembered over a restart.
    await relay.stop()
    await relay.start()
    await emitAll(database, [
      ['a', 3],
      ['b', 2],
    ])
    await relay.drained()
    expect([sink.of('a'), sink.of('b')]).toEqual([[], [1, 2]])
    isMended = true
    await trunkline.deadLetters.redrive({})
    await relay.drained()
    expect(sink.of('a')).toEqual(['poison', 1, 2, 3])
    isMended = false
    await emitAll(database, [
      ['a', 'poison'],
      ['a', 4],
    ])
    await relay.drained()
    expect(sink.of('a')).toHaveLength(4)
    await trunkline.deadLetters.discard({})
    await relay.drained()
    expect(sink.of('a')).toEqual(['poison', 1, 2, 3, 4])
    expect(sink.overlaps).toEqual([])
  })

  test('a receiver out of reach: nothing is counted, nothing is lost, however long', async () => {
    const database = await prepareDatabase(server)
    let isDown = true
    const sink = new RecordingSink({
      batchSizeMax: 3,
      judge: () => (isDown ? failing('connection_failed', true) : undefined),
    })
    const relay = open(database.url).relay(quick({ sink, attemptsMax: 2 }))
    const errors: unknown[] = []
    relay.on('error', (error) => errors.push((error as { code?: string }).code))
    await relay.start()
    await emitAll(
      database,
      Array.from({ length: 40 }, (_, n) => [`k${n % 4}`, n] as const),
    )
    await eventually(() => sink.attempts.length >= 8, { what: 'it goes on trying' })
    expect(errors).toEqual(['connection_failed'])
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
    isDown = false
    await relay.drained()
    expect(sink.confirmed).toHaveLength(40)
    for (const n of [0, 1, 2, 3]) expect(sink.of(`k${n}`)).toEqual(Array.from({ length: 10 }, (_, m) => 4 * m + n))
  })

  test('one that always closes the connection is told from a receiver that is out of reach', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink({
      judge: ({ change }) => (poison(change.payload) ? failing('connection_failed', true) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, attemptsMax: 3, concurrency: 4 }))
    await relay.start()
    await emitAll(database, [['bad', 'poison']])
    let n = 0
    await eventually(
      async () => {
        await emitAll(database, [[`good ${(n += 1)}`, n]])
        return (await trunkline.deadLetters.list()).length === 1
      },
      { what: 'it becomes a dead letter', intervalMs: 50, timeoutMs: 20_000 },
    )
    await relay.drained()
    expect(sink.confirmed).toHaveLength(n)
  })

  test('Retry-After is waited for', async () => {
    const database = await prepareDatabase(server)
    const times: number[] = []
    const sink = new RecordingSink({
      judge: () => {
        times.push(performance.now())
        return times.length === 1 ? failing('receiver_throttles', true, 700) : undefined
      },
    })
    const relay = open(database.url).relay(quick({ sink }))
    await relay.start()
    await emitAll(database, [['a', 1]])
    await relay.drained()
    expect(times).toHaveLength(2)
    expect(times[1]! - times[0]!).toBeGreaterThan(690)
  })

  test('a sink that throws, or gives too few outcomes: all are attempted again', async () => {
    const database = await prepareDatabase(server)
    const good = new RecordingSink()
    let calls = 0
    const sink = {
      name: 'odd:',
      batchSizeMax: 10,
      start: () => Promise.resolve(),
      stop: () => Promise.resolve(),
      deliver: (...call: Parameters<RecordingSink['deliver']>) => {
        calls += 1
        if (calls === 1) return Promise.reject(new Error('boom'))
        return calls === 2 ? Promise.resolve([]) : good.deliver(...call)
      },
    }
    const relay = open(database.url).relay(quick({ sink, concurrency: 1 }))
    await relay.start()
    await emitAll(database, [
      ['a', 1],
      ['a', 2],
    ])
    await relay.drained()
    expect(good.of('a')).toEqual([1, 2])
  })

  test('a format that throws makes a dead letter, and the others go on', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink()
    const trunkline = open(database.url)
    const relay = trunkline.relay({
      ...quick({ sink }),
      format: {
        name: 'picky',
        encode(change) {
          if (poison(change.payload)) throw new Error('cannot write this \0 \ud800')
          return change.payload === 'not for us' ? undefined : linesFormat.encode(change)
        },
      },
    })
    const passed: unknown[] = []
    relay.on('passed-over', ({ payload }) => passed.push(payload))
    await relay.start()
    await emitAll(database, [
      ['a', 1],
      ['a', 'poison'],
      ['a', 'not for us'],
      ['a', 2],
    ])
    await relay.drained()
    expect([sink.of('a'), passed]).toEqual([[1, 2], ['not for us']])
    const [letter] = await trunkline.deadLetters.list()
    expect(letter).toMatchObject({ errorCode: 'encode_failed', key: 'a' })
  })

  test('a file that cannot be written for long: nothing is counted, nothing is given up', async () => {
    const database = await prepareDatabase(server)
    const directory = join(await scratchDirectory(), 'out')
    const path = join(directory, 'events.ndjson')
    await mkdir(directory)
    let calls = 0
    class CountingSink extends FileSink {
      override async deliver(...args: Parameters<FileSink['deliver']>): ReturnType<FileSink['deliver']> {
        calls += 1
        return super.deliver(...args)
      }
    }
    const relay = open(database.url).relay(quick({ sink: new CountingSink({ path }), attemptsMax: 2 }))
    const errors: string[] = []
    relay.on('error', (error) => errors.push(error.message))
    await relay.start()
    await emitAll(database, [['a', 1]])
    await relay.drained()
    await rename(directory, `${directory}.away`)
    await emitAll(database, [
      ['a', 2],
      ['a', 3],
      ['b', 4],
    ])
    await eventually(() => errors.length > 0, { what: 'it is told' })
    calls = 0
    await eventually(() => calls > 4, { what: 'it is tried more often than a delivery may be', timeoutMs: 30_000 })
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
    await rename(`${directory}.away`, directory)
    await relay.drained()
    const lines = (await readFile(path, 'utf8')).trim().split('\n')
    const payloads = lines.map((line) => (JSON.parse(line) as { payload: number }).payload)
    expect(payloads.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4])
    expect(payloads.indexOf(2)).toBeLessThan(payloads.indexOf(3))
    expect(errors).toEqual([expect.stringContaining('ENOENT')])
  })
})
