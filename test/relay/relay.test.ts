import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import { describeEachPostgres, eventually, USER_ROLE } from '../support/index.ts'
import { emitAll, emitMany, failing, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

describeEachPostgres('relay', (server) => {
  test('delivers what was there and what comes, each key in order, once', async () => {
    const database = await prepareDatabase(server)
    await emitMany(database, 3_000, 50)
    const sink = new RecordingSink({ batchSizeMax: 100 })
    const relay = open(database.url).relay(quick({ sink, topics: ['order'] }))
    await relay.start()
    expect(await relay.drained()).toBe(true)
    expect(sink.confirmed).toHaveLength(3_000)
    await emitAll(database, [
      ['k1', 'late'],
      [null, 'without key'],
    ])
    await eventually(() => sink.confirmed.length === 3_002, { what: 'the late ones arrive' })
    expect(sink.of('k1')).toEqual([...Array.from({ length: 60 }, (_, n) => n), 'late'])
    expect(sink.overlaps).toEqual([])
    await emitAll(database, [['k1', 'other topic']], 'other')
    await relay.drained()
    await relay.stop()
    expect([sink.started, sink.stopped, sink.confirmed.length]).toEqual([1, 1, 3_002])
    // Nothing is delivered again after a stop.
    await relay.start()
    await relay.drained()
    await relay.stop()
    expect(sink.confirmed).toHaveLength(3_002)
  })

  test('reads no further than its window while the sink is slow, and loses nothing by it', async () => {
    const database = await prepareDatabase(server)
    const release = Promise.withResolvers<undefined>()
    const sink = new RecordingSink({ batchSizeMax: 5, judge: () => release.promise })
    const relay = open(database.url).relay(quick({ sink, concurrency: 3, windowMax: 50 }))
    await emitMany(database, 2_000, 40)
    await relay.start()
    await eventually(() => sink.calls === 3, { what: 'all lanes are busy' })
    await emitMany(database, 10, 10)
    const before = sink.attempts.length
    release.resolve(undefined)
    await relay.drained()
    expect(before).toBe(3)
    expect(sink.confirmed).toHaveLength(2_010)
    expect(sink.callsMax).toBe(3)
    expect(Math.max(...sink.batchSizes)).toBe(5)
    for (let key = 10; key < 40; key += 1) expect(sink.of(`k${key}`)).toEqual(Array.from({ length: 50 }, (_, n) => n))
  })

  test('stops at once while the sink is out of reach, and starts where it stopped', async () => {
    const database = await prepareDatabase(server)
    let isDown = true
    const sink = new RecordingSink({ judge: () => (isDown ? failing('connection_failed', true) : undefined) })
    const relay = open(database.url).relay(quick({ sink }))
    await emitMany(database, 100, 10)
    await relay.start()
    await eventually(() => sink.attempts.length > 0, { what: 'it tries' })
    const stopping = performance.now()
    await relay.stop()
    expect(performance.now() - stopping).toBeLessThan(5_000)
    isDown = false
    await relay.start()
    await relay.drained()
    expect(sink.confirmed).toHaveLength(100)
  })

  test('stops within 2 s while its receiver is out of reach, although much is begun', async () => {
    const database = await prepareDatabase(server)
    let isDown = false
    const sink = new RecordingSink({
      batchSizeMax: 10,
      judge: async (_delivery, signal) => {
        if (!isDown) return undefined
        // Half of the calls are refused, the others hang.
        if (sink.attempts.length % 2 === 0) return failing('connection_refused', true)
        if (!signal.aborted) await once(signal, 'abort')
        return failing('relay_stopping', true)
      },
    })
    const relay = open(database.url).relay(quick({ sink }))
    await relay.start()
    await emitMany(database, 400, 40)
    await eventually(() => sink.confirmed.length > 50, { what: 'some arrive' })
    isDown = true
    await emitMany(database, 400, 40)
    const before = sink.attempts.length
    await eventually(() => sink.attempts.length > before + 20, { what: 'it tries' })
    const stopping = performance.now()
    await relay.stop()
    expect(performance.now() - stopping).toBeLessThan(3_000)
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
    isDown = false
    await relay.start()
    await relay.drained()
    for (let key = 0; key < 40; key += 1) {
      const seen = [...new Set(sink.confirmed.filter((d) => d.key === `k${key}`).map(({ change }) => change.id))]
      expect(seen).toHaveLength(20)
      expect(seen).toEqual(seen.toSorted((a, b) => Number(a) - Number(b)))
    }
  })

  test('polls where it may not listen, and runs as a role that was granted what it needs', async () => {
    const database = await prepareDatabase(server)
    await database.query(`select trunkline.grant_relay('${USER_ROLE}')`)
    const trunkline = createTrunkline({ url: database.userUrl, listenUrl: false, pollIntervalMs: 50 })
    onTestFinished(() => trunkline.stop())
    const sink = new RecordingSink({
      judge: ({ change }) => (change.payload === 'bad' ? failing('receiver_refused', false) : undefined),
    })
    const relay = trunkline.relay(quick({ sink }))
    await relay.start()
    await emitAll(database, [
      ['a', 1],
      ['a', 'bad'],
      ['a', 2],
    ])
    await eventually(() => sink.confirmed.length === 2, { what: 'they arrive' })
    await eventually(async () => (await trunkline.deadLetters.list()).length === 1, { what: 'one is dead' })
    expect(await trunkline.deadLetters.discard({})).toBe(1)
    const client = await database.connect('user')
    await client.query('begin')
    expect(await trunkline.inbox.once(client, 'c', 'm', () => undefined)).toBe(true)
    await client.query('commit')
  })

  test('a sink that cannot start, a log that is not there, options that are wrong', async () => {
    const database = await prepareDatabase(server)
    const trunkline = open(database.url)
    const sink = new RecordingSink()
    for (const wrong of [
      { name: '' },
      { concurrency: 0 },
      { leaseMs: 1 },
      { topics: 'order' },
      { onDeadLetter: 'ignore' },
    ]) {
      expect(() => trunkline.relay({ ...quick({ sink }), ...(wrong as object) })).toThrow(
        expect.objectContaining({ code: 'invalid_option' }),
      )
    }
    for (const from of ['yesterday', '1/2/3', '']) {
      expect(() => trunkline.relay(quick({ sink, from }))).toThrow(
        expect.objectContaining({ code: 'invalid_position' }),
      )
    }
    expect(() => trunkline.relay({ name: 'x', sink: 'pigeon://roof' })).toThrow(
      expect.objectContaining({ code: 'unknown_sink_scheme' }),
    )
    const refused = failing('connection_refused', true)
    const broken = Object.assign(new RecordingSink(), { start: () => Promise.reject(refused) })
    const relay = trunkline.relay(quick({ sink: broken }))
    await expect(relay.start()).rejects.toBe(refused)
    expect(relay.state).toBe('idle')
    expect(await database.query('select from trunkline.relay_member')).toEqual([])
    const elsewhere = createTrunkline({ url: database.url, schema: 'nowhere' })
    onTestFinished(() => elsewhere.stop())
    await expect(elsewhere.relay(quick({ sink })).start()).rejects.toMatchObject({ code: 'not_installed' })
  })
})
