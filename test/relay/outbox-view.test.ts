import { expect, test } from 'vitest'
import { comparePositions, earliestPosition, LogReader, parsePosition } from '../../src/log/index.ts'
import { placeOf } from '../../src/relay/keys.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { emitAll, failing, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

describeEachPostgres('relay: what SQL shows', (server) => {
  test('the view outbox: READY until a relay has delivered it, DONE after it', async () => {
    const database = await prepareDatabase(server)
    const statuses = async (): Promise<unknown[]> =>
      database.query(
        'select aggregate_type, aggregate_id, event_type, payload, status, relay from trunkline.outbox order by log_id',
      )
    await emitAll(database, [['a', { n: 1 }]])
    const event = { aggregate_type: 'order', aggregate_id: 'a', event_type: 'happened', payload: { n: 1 } }
    expect(await statuses()).toEqual([{ ...event, status: 'READY', relay: null }])
    let isDown = true
    const sink = new RecordingSink({ judge: () => (isDown ? failing('receiver_unavailable', true) : undefined) })
    const relay = open(database.url).relay(quick({ sink, name: 'view', topics: ['order'], attemptsMax: 1_000 }))
    await relay.start()
    await eventually(async () => (await database.query('select from trunkline.failed_delivery')).length === 1, {
      what: 'it failed',
    })
    expect(await statuses()).toEqual([{ ...event, status: 'READY', relay: 'view' }])
    isDown = false
    await relay.drained()
    expect(await statuses()).toEqual([{ ...event, status: 'DONE', relay: 'view' }])
    const [row] = await database.query<{ event_id: string; created_at: Date }>(
      'select event_id, created_at from trunkline.outbox',
    )
    expect(row!.event_id).toBe(sink.confirmed[0]!.messageId)
    expect(row!.created_at).toBeInstanceOf(Date)
  })

  test('slots by key are the same in SQL and here', async () => {
    const database = await prepareDatabase(server)
    for (const [key, id] of [
      ['a', '1'],
      ['주문 42', '2'],
      ['', '3'],
      [null, '4711'],
    ] as const) {
      const [row] = await database.query('select trunkline.key_slot($1, $2, 16) as slot', [key, id])
      expect(row).toEqual({ slot: placeOf('order', key, id, 16).slot })
    }
  })

  test('a relay that runs holds the log; one that died holds it no longer than installation.hold', async () => {
    const database = await prepareDatabase(server)
    const age = (by: string): Promise<unknown> =>
      database.query(
        'update trunkline.slot set opened_at = opened_at - $1::interval, closed_at = closed_at - $1::interval',
        [by],
      )
    const rotate = (): Promise<unknown> => database.query('select trunkline.rotate()')
    const count = async (): Promise<unknown> =>
      (await database.query<{ n: number }>('select count(*)::integer as n from trunkline.log'))[0]?.n
    const trunkline = open(database.url)
    let isDown = true
    const sink = new RecordingSink({ judge: () => (isDown ? failing('connection_failed', true) : undefined) })
    const relay = trunkline.relay(quick({ sink, topics: ['order'] }))
    await emitAll(database, [['a', 1]])
    await relay.start()
    await eventually(() => sink.attempts.length > 0, { what: 'it tries' })
    await relay.stop()
    for (const by of ['13 hours', '25 hours']) {
      await age(by)
      await rotate()
    }
    expect(await count()).toBe(1)
    await database.query("update trunkline.reader set updated_at = now() - interval '8 days'")
    await rotate()
    expect(await count()).toBe(0)
    // It is told, and says so.
    isDown = false
    const errors: unknown[] = []
    relay.on('error', (error) => errors.push((error as { code?: string }).code))
    await relay.start()
    await eventually(() => relay.failure !== undefined, { what: 'it tells' })
    expect(relay.failure).toMatchObject({ code: 'position_lost' })
    expect(errors).toEqual(['position_lost'])
    await expect(relay.drained()).rejects.toMatchObject({ code: 'position_lost' })
  })

  test('places of several readers: the earliest misses nothing for any of them', async () => {
    const database = await prepareDatabase(server)
    await database.query("select trunkline.emit('order', 'k' || n, 't', 'null') from generate_series(1, 30) as n")
    const client = await database.connect()
    const reader = await LogReader.open(client, { from: 'beginning', pageRowsMax: 10 })
    const places = [reader.position]
    for (let n = 0; n < 3; n += 1) places.push((await reader.next()).position)
    const parsed = places.map((place) => parsePosition(place))
    for (const [n, place] of parsed.entries()) {
      for (const [m, other] of parsed.entries())
        expect(Math.sign(comparePositions(place, other))).toBe(Math.sign(n - m))
    }
    expect(earliestPosition([parsed[2]!, parsed[1]!])).toEqual(parsed[1])
    expect(earliestPosition([parsed[3]!, parsed[1]!, parsed[0]!])).toEqual(parsed[0])
    expect(earliestPosition([])).toBeUndefined()
  })

  test('captured changes: each key in order, and a truncate between what was before and after it', async () => {
    const database = await prepareDatabase(server)
    await database.query('create table item (id integer primary key, name text)')
    const trunkline = open(database.url)
    await trunkline.capture('item')
    const sink = new RecordingSink({ batchSizeMax: 7 })
    const relay = trunkline.relay(quick({ sink, tables: ['item'] }))
    await database.query("insert into item select n, 'a' from generate_series(1, 200) as n")
    await database.query(
      "update item set name = 'b'; truncate item; insert into item select n, 'c' from generate_series(1, 200) as n",
    )
    await relay.start()
    await relay.drained()
    expect(sink.confirmed).toHaveLength(601)
    // The log is told at the end, too, and not only by the next process's heartbeat.
    await relay.stop()
    expect(
      await database.query(
        `select count(*)::integer as n from trunkline.log as l join trunkline.reader as r on r.name = 'relay:test'
         where not trunkline.is_covered(r.position, l.id, l.xid)`,
      ),
    ).toEqual([{ n: 0 }])
    const operations = sink.confirmed.map(({ change }) => change.operation)
    expect(operations.indexOf('truncate')).toBe(400)
    for (const key of ['1', '77', '200']) {
      expect(
        sink.confirmed.filter((delivery) => delivery.key === key).map(({ change }) => change.new?.['name']),
      ).toEqual(['a', 'b', 'c'])
    }
  })
})
