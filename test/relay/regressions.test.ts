import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { restoredChange, storedChange } from '../../src/log/index.ts'
import { createFormat } from '../../src/relay/index.ts'
import { placeOf } from '../../src/relay/keys.ts'
import { describeEachPostgres, eventually, terminateBackends } from '../support/index.ts'
import { emitAll, emitMany, failing, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

/** Two keys of one slot, in different lanes. */
function keysOfOneSlot(): readonly [string, string] {
  const first = placeOf('order', 'q0', '1', 16)
  for (let n = 1; ; n += 1) {
    const { slot, lane } = placeOf('order', `q${n}`, '1', 16)
    if (slot === first.slot && lane % 16 !== first.lane % 16) return ['q0', `q${n}`]
  }
}

const waitMs = { timeoutMs: 30_000 }

describeEachPostgres('relay: what went wrong once', (server) => {
  test('a table that was renamed is read for slots that are taken later, too', async () => {
    const database = await prepareDatabase(server)
    await database.query('create table account (id text primary key, v integer)')
    const [mine, other] = [open(database.url), open(database.url)]
    await mine.capture('account')
    const sinks = [new RecordingSink(), new RecordingSink()] as const
    const relay = mine.relay(quick({ sink: sinks[0], tables: ['account'], leaseMs: 3_000 }))
    const leaving = other.relay(quick({ sink: sinks[1], tables: ['account'], leaseMs: 3_000 }))
    await relay.start()
    await leaving.start()
    await eventually(() => relay.slots.length === 8 && leaving.slots.length === 8, { what: 'shared', ...waitMs })
    await database.query('alter table account rename to account_old')
    await leaving.stop()
    await eventually(() => relay.slots.length === 16, { what: 'one has all', ...waitMs })
    await database.query("insert into account_old select 'k' || n, n from generate_series(1, 100) as n")
    await relay.drained()
    expect(sinks[0].confirmed).toHaveLength(100)
  })

  test('a process with other topics is refused while others run', async () => {
    const database = await prepareDatabase(server)
    await emitAll(database, [['a', 1]])
    const [first, second] = [open(database.url), open(database.url)]
    const sink = new RecordingSink()
    const one = first.relay(quick({ sink, topics: undefined, tables: undefined }))
    await one.start()
    const other = second.relay(quick({ sink, topics: ['invoice'] }))
    await expect(other.start()).rejects.toMatchObject({
      code: 'other_topics',
      message: expect.stringMatching(/Stop them/) as string,
    })
    await one.stop()
    await other.start()
    await other.stop()
  })

  test('outcomes that are no DeliveryError are failures like others', async () => {
    const database = await prepareDatabase(server)
    const foreign = Object.assign(new Error('of another copy of the package'), { code: 'refused', retryable: false })
    const sink = new RecordingSink({
      judge: ({ change }) =>
        change.payload === 'plain'
          ? (new Error('boom') as never)
          : change.payload === 'foreign'
            ? (foreign as never)
            : undefined,
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, attemptsMax: 2 }))
    await relay.start()
    await emitAll(database, [
      ['a', 'plain'],
      ['b', 'foreign'],
      ['a', 1],
    ])
    await relay.drained()
    expect(sink.of('a')).toEqual([1])
    const letters = await trunkline.deadLetters.list()
    expect(
      letters
        .map(({ key, attempts, errorCode }) => [key, attempts, errorCode].join(' '))
        .toSorted((a, b) => (a < b ? -1 : 1)),
    ).toEqual(['a 2 delivery_failed', 'b 1 refused'])
  })

  test('a table that is dropped and made anew while it is relayed goes on, also from the place of one that was stopped', async () => {
    const database = await prepareDatabase(server)
    const trunkline = open(database.url)
    const sink = new RecordingSink()
    const make = async (v: number): Promise<void> => {
      await database.query('drop table if exists account; create table account (id integer primary key, v integer)')
      await trunkline.capture('account')
      await database.query('insert into account values (1, $1)', [v])
    }
    await make(1)
    const relay = trunkline.relay(quick({ sink, tables: ['account'] }))
    await relay.start()
    await relay.drained()
    await make(2)
    await relay.drained()
    await relay.stop()
    // One that came and went while nobody looked, and the present one.
    await make(3)
    await make(4)
    const next = trunkline.relay(quick({ sink, tables: ['account'] }))
    await next.start()
    await next.drained()
    const inserted = sink.confirmed.filter(({ change }) => change.operation === 'insert')
    expect(inserted.map(({ change }) => change.new?.['v'])).toEqual([1, 2, 3, 4])
  })

  test('a later attempt is encoded like the first', async () => {
    const database = await prepareDatabase(server)
    await database.query('create table account (region text, id bigint, v integer, primary key (region, id))')
    const trunkline = open(database.url)
    await trunkline.capture('account')
    const bodies: (readonly [string | null, string])[] = []
    const sink = new RecordingSink({
      judge: ({ key, body }) => {
        bodies.push([key, body.toString()])
        return bodies.length === 1 ? failing('receiver_unavailable', true) : undefined
      },
    })
    const format = createFormat('debezium', { transport: 'kafka', topicPrefix: 'shop', database: 'shop' })
    const relay = trunkline.relay({ ...quick({ sink, tables: ['account'] }), format })
    await relay.start()
    await database.query("insert into account values ('eu', 9007199254740993, 1)")
    await relay.drained()
    expect(bodies).toHaveLength(2)
    expect(bodies[1]).toEqual(bodies[0])
    expect(restoredChange(storedChange(sink.confirmed[0]!.change))).toEqual(sink.confirmed[0]!.change)
  })

  test('a key longer than an index row, and a Retry-After that is no number: stored, counted, dead', async () => {
    const database = await prepareDatabase(server)
    const long = randomBytes(4_000).toString('hex')
    const sink = new RecordingSink({
      batchSizeMax: 10,
      judge: ({ change }) => (change.payload === 'bad' ? failing('receiver_unavailable', true, Number.NaN) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, attemptsMax: 3 }))
    await relay.start()
    await emitAll(database, [
      ['a', 1],
      [long, 'bad'],
      [long, 2],
      ['a', 2],
    ])
    await relay.drained()
    expect([sink.of('a'), sink.of(long)]).toEqual([[1, 2], [2]])
    expect(await trunkline.deadLetters.list()).toMatchObject([{ key: long, attempts: 3 }])
    expect(sink.attempts).toHaveLength(6)
  })

  test('a database that refuses to store is told of, and costs no slot', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink({
      judge: ({ change }) => (change.payload === 'bad' ? failing('receiver_refused', false) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink }))
    const errors: string[] = []
    let shares = 0
    relay.on('error', ({ message }) => errors.push(message))
    await relay.start()
    relay.on('slots', () => (shares += 1))
    await database.query("alter table trunkline.failed_delivery add constraint nothing check (topic <> 'order')")
    await emitAll(database, [['a', 'bad']])
    await eventually(() => errors.length > 0, { what: 'it is told', ...waitMs })
    expect(errors[0]).toContain('nothing')
    await database.query('alter table trunkline.failed_delivery drop constraint nothing')
    await relay.drained()
    expect(await trunkline.deadLetters.list()).toHaveLength(1)
    expect([sink.attempts.length, shares, errors.length]).toEqual([1, 0, 1])
  })

  test('discarded dead letters make room for what comes', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink({
      judge: ({ change }) => (change.payload === 'bad' ? failing('receiver_refused', false) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, onDeadLetter: 'hold', failedMax: 3 }))
    await relay.start()
    await emitAll(database, [
      ['a', 'bad'],
      ['b', 'bad'],
      ['c', 'bad'],
    ])
    await eventually(async () => (await trunkline.deadLetters.list()).length === 3, { what: 'all are dead', ...waitMs })
    await trunkline.deadLetters.discard({ relay: 'test' })
    await emitAll(database, [
      ['a', 1],
      ['x', 2],
      ['y', 3],
    ])
    await eventually(() => sink.confirmed.length === 3, { what: 'it goes on', ...waitMs })
  })

  test('what waits behind a failure comes in calls of a few megabytes', async () => {
    const database = await prepareDatabase(server)
    let isBroken = true
    const sink = new RecordingSink({
      batchSizeMax: 100,
      judge: () => (isBroken ? failing('receiver_unavailable', true) : undefined),
    })
    const relay = open(database.url).relay(quick({ sink, leaseMs: 5_000, attemptsMax: 1_000 }))
    await relay.start()
    await emitAll(database, [['k', 'head']])
    await database.query(
      "select trunkline.emit('order', 'k', 'x', to_jsonb(repeat(md5(n::text), 32 * 1024))) from generate_series(1, 12) as n",
    )
    await eventually(async () => (await database.query('select from trunkline.failed_delivery')).length === 13, {
      what: 'stored',
      ...waitMs,
    })
    sink.batchSizes.length = 0
    isBroken = false
    await relay.drained()
    expect(sink.confirmed).toHaveLength(13)
    expect(Math.max(...sink.batchSizes)).toBeLessThanOrEqual(4)
  })

  test('what was delivered at a second attempt is not delivered again behind later ones of its key', async () => {
    const database = await prepareDatabase(server)
    const [slow, key] = keysOfOneSlot()
    const gate = Promise.withResolvers<undefined>()
    let failuresOfE = 0
    let isBroken = true
    const sink = new RecordingSink({
      judge: ({ change, key: one }) => {
        if (one === slow) return gate.promise
        if (change.payload === 'E' && (failuresOfE += 1) < 2) return failing('receiver_unavailable', true)
        return change.payload === 'F' && isBroken ? failing('receiver_unavailable', true) : undefined
      },
    })
    const relay = open(database.url).relay(quick({ sink, attemptsMax: 1_000 }))
    await relay.start()
    await emitAll(database, [
      [slow, 's'],
      [key, 'E'],
      [key, 'F'],
    ])
    const states = async (): Promise<unknown> =>
      (await database.query<{ state: string }>('select state from trunkline.failed_delivery order by id')).map(
        ({ state }) => state,
      )
    await eventually(async () => String(await states()) === 'done,retry', {
      what: 'E is delivered, F is not',
      ...waitMs,
    })
    let lost = 0
    relay.on('slots', () => (lost += 1))
    await terminateBackends(database, { where: "application_name = 'trunkline relay keep'" })
    gate.resolve(undefined)
    await eventually(() => lost > 0, { what: 'it starts over', ...waitMs })
    isBroken = false
    await relay.drained()
    expect(sink.of(key)).toEqual(['E', 'F'])
    expect(await states()).toEqual([])
  })

  test('a dead letter that is discarded before the checkpoint passes it is not attempted when the relay starts over', async () => {
    const database = await prepareDatabase(server)
    const [slow, key] = keysOfOneSlot()
    const gate = Promise.withResolvers<undefined>()
    const attempts: unknown[] = []
    const sink = new RecordingSink({
      judge: ({ change, key: one }) => {
        if (one === slow) return gate.promise
        attempts.push(change.payload)
        return change.payload === 'bad' ? failing('receiver_refused', false) : undefined
      },
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink }))
    await relay.start()
    await emitAll(database, [
      [slow, 's'],
      [key, 'bad'],
    ])
    await eventually(async () => (await trunkline.deadLetters.list()).length === 1, { what: 'it is dead', ...waitMs })
    expect(await trunkline.deadLetters.discard({})).toBe(1)
    expect(await trunkline.deadLetters.list()).toEqual([])
    let lost = 0
    relay.on('slots', () => (lost += 1))
    await terminateBackends(database, { where: "application_name = 'trunkline relay keep'" })
    gate.resolve(undefined)
    await eventually(() => lost > 0, { what: 'it starts over', ...waitMs })
    await emitAll(database, [[key, 'good']])
    await relay.drained()
    expect(attempts).toEqual(['bad', 'good'])
    // It goes for good when the checkpoint is past it.
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
  })

  test('what waits behind another one is looked at when it is its turn, and not before', async () => {
    const database = await prepareDatabase(server)
    let isBroken = true
    const sink = new RecordingSink({
      judge: () => (isBroken ? failing('receiver_unavailable', true) : undefined),
    })
    const relay = open(database.url).relay(quick({ sink, attemptsMax: 1_000, failedMax: 100 }))
    await relay.start()
    await emitAll(
      database,
      Array.from({ length: 30 }, (_, n) => ['k', n] as const),
    )
    await eventually(async () => (await database.query('select from trunkline.failed_delivery')).length === 30, {
      what: 'all are stored',
      ...waitMs,
    })
    const due = (thorough: boolean): Promise<unknown[]> =>
      database.query(
        `select d.log_id from trunkline.relay_member as m cross join trunkline.relay_due('test', m.owner, 100, $1) as d`,
        [thorough],
      )
    expect(await due(false)).toHaveLength(1)
    expect(await due(true)).toHaveLength(1)
    expect(
      await database.query("select from trunkline.failed_delivery where retry_at = 'infinity' and attempts = 0"),
    ).toHaveLength(29)
    isBroken = false
    await relay.drained()
    expect(sink.of('k')).toEqual(Array.from({ length: 30 }, (_, n) => n))
  })

  test('many dead letters redriven at once: in order of the key, and what comes meanwhile does not wait for them', async () => {
    const database = await prepareDatabase(server)
    let refuses = true
    const release = Promise.withResolvers<undefined>()
    const sink = new RecordingSink({
      batchSizeMax: 100,
      judge: ({ key }) => (refuses ? failing('receiver_refused', false) : key === 'live' ? undefined : release.promise),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, failedMax: 2_000, leaseMs: 5_000 }))
    await relay.start()
    await emitMany(database, 2_100, 700)
    await relay.drained()
    refuses = false
    expect(await trunkline.deadLetters.redrive({ relay: 'test' })).toBe(2_100)
    expect(await trunkline.deadLetters.list()).toEqual([])
    await eventually(() => sink.calls === 16, { what: 'all calls for stored deliveries wait', ...waitMs })
    // Longer than it takes until what is held is compared with the database.
    await new Promise((resolve) => setTimeout(resolve, 3_000))
    await emitAll(database, [['live', 1]])
    await eventually(() => sink.of('live').length === 1, { what: 'the live one arrives', ...waitMs })
    release.resolve(undefined)
    await relay.drained()
    for (let key = 0; key < 700; key += 1) expect(sink.of(`k${key}`)).toEqual([0, 1, 2])
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
  })

  test('a dead letter that holds its key is redriven before what waits behind it', async () => {
    const database = await prepareDatabase(server)
    let isMended = false
    const sink = new RecordingSink({
      batchSizeMax: 10,
      judge: ({ change }) => (change.payload === 'bad' && !isMended ? failing('receiver_refused', false) : undefined),
    })
    const trunkline = open(database.url)
    const relay = trunkline.relay(quick({ sink, onDeadLetter: 'hold' }))
    await relay.start()
    await emitAll(database, [
      ['a', 'bad'],
      ['a', 1],
      ['a', 2],
    ])
    await relay.drained()
    await relay.stop()
    isMended = true
    await trunkline.deadLetters.redrive({})
    await relay.start()
    await emitAll(database, [['a', 3]])
    await relay.drained()
    expect(sink.of('a')).toEqual(['bad', 1, 2, 3])
  })

  test('a statement that the server cancels, or has no room for, is tried again: the relay is not broken', async () => {
    const database = await prepareDatabase(server)
    const sink = new RecordingSink()
    const relay = open(database.url).relay(quick({ sink }))
    const failures: unknown[] = []
    relay.on('error', () => failures.push(relay.failure))
    await relay.start()
    await emitAll(database, [['a', 1]])
    await relay.drained()
    const blocker = await database.connect('admin')
    await blocker.query('begin; lock table trunkline.log_0, trunkline.log_1, trunkline.log_2 in access exclusive mode')
    const drained = relay.drained()
    await eventually(
      async () =>
        (
          await database.adminQuery(
            `select pg_cancel_backend(a.pid) from (
               select pid from pg_stat_activity where application_name = 'trunkline relay read' and wait_event_type = 'Lock'
                 and datname = current_database() offset 0
             ) as a`,
          )
        ).length > 0,
      { what: 'it is cancelled', ...waitMs },
    )
    await eventually(() => failures.length > 0, { what: 'it is told', ...waitMs })
    await blocker.query('rollback')
    await emitAll(database, [['a', 2]])
    expect(await drained).toBe(true)
    await relay.drained()
    expect(failures).toEqual([undefined])
    expect(sink.of('a')).toEqual([1, 2])
  })
})
