import pg from 'pg'
import { createPool, type DatabasePool, sql } from 'slonik'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { emit, type OutboxEvent } from '../../src/outbox/index.ts'
import { migrate } from '../../src/schema/index.ts'
import { backendPid, describeEachPostgres, untilBlocked, useDatabase } from '../support/index.ts'

const schema = 'Odd "Schema ü'
const place = pg.escapeIdentifier(schema)

describeEachPostgres('emit', (server) => {
  const database = useDatabase(server)

  beforeAll(async () => {
    const pool = new pg.Pool({ connectionString: database().url, max: 1 })
    await migrate({ pool, schema })
    await pool.end()
  })

  async function slonik(): Promise<DatabasePool> {
    const pool = await createPool(database().url)
    onTestFinished(() => pool.end())
    return pool
  }

  async function eventsOf(topic: string): Promise<unknown[]> {
    return database().query(
      `select l.operation::text, l.key, l.type, l.payload, l.headers from ${place}.log as l
      where l.topic = hashtextextended($1, 0) order by l.id`,
      [topic],
    )
  }

  const event = {
    topic: 'order',
    key: '42',
    type: 'created',
    payload: { n: 1, list: [null, 'ü 😀'] },
    headers: { trace: 'abc' },
  }
  const written = { operation: 'e', key: '42', type: 'created', payload: event.payload, headers: event.headers }

  test('by a pg client: state and event, both or neither', async () => {
    const client = await database().connect()
    await client.query('begin')
    const id = await emit(client, schema, event)
    expect(id).toMatch(/^\d+$/)
    expect(await eventsOf('order')).toEqual([])
    await client.query('rollback')
    expect(await eventsOf('order')).toEqual([])
    await client.query('begin')
    await emit(client, schema, event)
    await client.query('commit')
    expect(await eventsOf('order')).toEqual([written])
  })

  test('by a pg pool, with the least an event can have', async () => {
    const pool = new pg.Pool({ connectionString: database().url, max: 1 })
    onTestFinished(() => pool.end())
    await emit(pool, schema, { topic: 'least', payload: null })
    expect(await eventsOf('least')).toEqual([{ operation: 'e', key: null, type: null, payload: null, headers: null }])
  })

  test('by a slonik transaction, connection and pool', async () => {
    const pool = await slonik()
    const topic = 'by slonik'
    await expect(
      pool.transaction(async (transaction) => {
        await emit(transaction, schema, { ...event, topic })
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await eventsOf(topic)).toEqual([])
    await pool.transaction(async (transaction) => {
      await transaction.query(sql.unsafe`select 1`)
      expect(await emit(transaction, schema, { ...event, topic })).toMatch(/^\d+$/)
    })
    await pool.connect((connection) => emit(connection, schema, { ...event, topic }))
    await emit(pool, schema, { ...event, topic })
    expect(await eventsOf(topic)).toEqual([written, written, written])
  })

  test('a role that owns nothing may emit', async () => {
    const client = await database().connect('user')
    await emit(client, schema, { topic: 'by anybody', payload: [] })
    expect(await eventsOf('by anybody')).toHaveLength(1)
  })

  test('events of one key wait for each other, so that their order holds', async () => {
    const [first, second] = [await database().connect(), await database().connect()]
    const pid = await backendPid(second)
    await first.query('begin')
    await emit(first, schema, { topic: 'ordered', key: 'k', payload: 1 })
    const waiting = emit(second, schema, { topic: 'ordered', key: 'k', payload: 2 })
    await untilBlocked(database(), pid)
    await emit(first, schema, { topic: 'ordered', key: 'other', payload: 3 })
    await first.query('commit')
    await waiting
    expect((await eventsOf('ordered')).map((row) => (row as { payload: number }).payload)).toEqual([1, 3, 2])
  })

  const cyclic: Record<string, unknown> = { a: { b: [] } }
  ;(cyclic['a'] as { b: unknown[] }).b.push(cyclic)

  test.each([
    ['no topic', { topic: '' }, /no topic/],
    ['a topic that is no text', { topic: 1 }, /topic is a number/],
    ['a key that is no text', { key: 42 }, /key is a number.*String\(key\)/s],
    ['a zero character', { key: 'a\0b' }, /key contains a zero/],
    ['no payload', { payload: undefined }, /payload is undefined.*Pass null/s],
    ['a bigint', { payload: { total: [1n] } }, /payload\.total\[0\] is a bigint/],
    ['NaN', { payload: { a: NaN } }, /payload\.a is NaN/],
    ['Infinity', { payload: -Infinity }, /payload is -Infinity/],
    ['a function', { payload: () => 1 }, /payload is a function/],
    ['undefined in a list', { payload: [undefined] }, /payload\[0\] is undefined/],
    ['a Map', { payload: { m: new Map() } }, /payload\.m is a Map/],
    ['a cycle', { payload: cyclic }, /payload\.a\.b\[0\] is part of itself/],
    ['a zero in a text', { payload: ['\0'] }, /payload\[0\] is a text with a zero/],
    ['half a pair', { payload: '\ud800' }, /surrogate/],
    ['headers that are no texts', { headers: { n: 1 } }, /header "n" is a number/],
    ['headers that are a list', { headers: ['a'] }, /headers are no object/],
  ])('refuses %s', async (_, wrong, message) => {
    const client = { query: () => Promise.reject(new Error('must not be sent')) }
    const refused = emit(client, schema, { topic: 't', payload: null, ...wrong } as OutboxEvent)
    await expect(refused).rejects.toMatchObject({ code: 'invalid_event', name: 'InvalidInputError' })
    await expect(refused).rejects.toThrow(message)
  })

  test('takes what JSON takes: dates, nested values, what is left out of objects, the same object twice', async () => {
    const shared = { n: 1 }
    const payload = {
      at: new Date(0),
      left: undefined,
      twice: [shared, shared],
      '': { deep: [[[]]] },
      text: String.raw`\u0000`,
    }
    const client = await database().connect()
    await emit(client, schema, { topic: 'json', payload })
    expect(await eventsOf('json')).toMatchObject([{ payload: JSON.parse(JSON.stringify(payload)) as unknown }])
  })

  test('refuses half of a surrogate pair, of which UTF-8 makes one and the same character', async () => {
    const client = await database().connect()
    for (const wrong of [{ key: 'a\ud800' }, { topic: '\udfff' }, { type: '\ud800' }]) {
      await expect(emit(client, schema, { ...event, ...wrong })).rejects.toMatchObject({ code: 'invalid_event' })
    }
  })

  test('tells what is missing', async () => {
    const client = await database().connect()
    await expect(emit(client, 'nowhere', event)).rejects.toMatchObject({ code: 'schema_missing' })
    await expect(emit(await slonik(), 'nowhere', event)).rejects.toMatchObject({ code: 'schema_missing' })
    await expect(emit(undefined as never, schema, event)).rejects.toMatchObject({ code: 'invalid_event' })
  })
})
