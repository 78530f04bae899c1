import { CloudEvent, HTTP, Kafka, MQTT, ValidationError } from 'cloudevents'
import { describe, expect, test } from 'vitest'
import { type Change, LogReader, restoredChange, storedChange } from '../../src/log/index.ts'
import { type Delivery, createFormat } from '../../src/relay/index.ts'
import { queryableOf, useTrunklineDatabase } from '../log/captured.ts'
import { describeEachPostgres } from '../support/index.ts'

const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

const event: Change = {
  position: '1/x/1',
  id: '7',
  xid: '5000000000',
  messageId: '0b1d3c5e-0000-8000-8000-000000000001',
  topic: 'order',
  key: 'Nº 1 "a%"',
  type: 'order-created',
  table: null,
  operation: null,
  old: null,
  new: null,
  payload: { total: '12.50', lines: [1, 2] },
  headers: { traceparent, 'x-tenant': 'seven', tenant: 'seven', id: 'forged' },
  createdAt: '2026-11-22T01:02:03.000004Z',
}
const update: Change = {
  ...event,
  topic: 'public.orders',
  key: '1',
  type: null,
  table: 'public.orders',
  operation: 'update',
  old: { id: '1', state: 'new' },
  new: { id: '1', state: 'paid' },
  payload: null,
  headers: null,
}

function encode(format: string, transport: string | undefined, change: Change): Delivery {
  const delivery = createFormat(format, { transport }).encode(change)
  if (delivery === undefined) throw new Error(`${format} has no delivery for it`)
  return delivery
}

function bodyOf({ body }: Delivery): unknown {
  return JSON.parse(body.toString('utf8'))
}

describe('the plain format', () => {
  test('in lines is the change, in the order of surface.md', () => {
    for (const change of [event, update]) {
      const line = encode('plain', 'lines', change)
      expect(line.body.toString()).toBe(JSON.stringify(change))
      expect(line.headers).toEqual({})
    }
    expect(Object.keys(event).join()).toBe(
      'position,id,xid,messageId,topic,key,type,table,operation,old,new,payload,headers,createdAt',
    )
  })

  test('of an event is the payload, with headers', () => {
    expect(encode('plain', 'kafka', event)).toMatchObject({
      messageId: event.messageId,
      destination: 'outbox.event.order',
      key: event.key,
      contentType: 'application/json',
      body: Buffer.from('{"total":"12.50","lines":[1,2]}'),
      headers: {
        traceparent,
        'x-tenant': 'seven',
        'trunkline-message-id': event.messageId,
        'trunkline-topic': 'order',
        'trunkline-key': event.key,
        'trunkline-type': 'order-created',
        'trunkline-created-at': event.createdAt,
      },
    })
  })

  test('of a captured change is the change, with headers', () => {
    const delivery = encode('plain', 'amqp', update)
    expect(bodyOf(delivery)).toEqual(update)
    expect(delivery.headers).toMatchObject({ 'trunkline-table': 'public.orders', 'trunkline-operation': 'update' })
  })
})

describe('the CloudEvents format', () => {
  const expected = {
    specversion: '1.0',
    id: event.messageId,
    source: '/trunkline/order',
    type: 'order-created',
    subject: event.key,
    partitionkey: event.key,
    time: event.createdAt,
    traceparent,
    tenant: 'seven',
    datacontenttype: 'application/json',
    data: event.payload,
  }

  test('structured has attributes and data in one text', () => {
    for (const transport of ['kafka', 'http', 'lines', undefined]) {
      const delivery = encode('cloudevents', transport, event)
      expect(bodyOf(delivery)).toEqual(expected)
      expect(delivery.contentType).toBe('application/cloudevents+json; charset=utf-8')
    }
    expect(encode('cloudevents', 'nats', event).headers).toMatchObject({ traceparent, 'x-tenant': 'seven' })
    expect(encode('cloudevents-binary', 'lines', event)).toEqual(encode('cloudevents', 'lines', event))
  })

  test.each([
    ['kafka', 'ce_id', 'ce_subject', event.key],
    ['redis', 'ce_id', 'ce_subject', event.key],
    ['amqp', 'cloudEvents:id', 'cloudEvents:subject', event.key],
    ['mqtt', 'id', 'subject', event.key],
    ['http', 'ce-id', 'ce-subject', 'N%C2%BA%201%20%22a%25%22'],
    ['nats', 'ce-id', 'ce-subject', 'N%C2%BA%201%20%22a%25%22'],
    [undefined, 'ce-id', 'ce-subject', 'N%C2%BA%201%20%22a%25%22'],
  ])('binary has attributes as headers of %s', (transport, idName, subjectName, subject) => {
    const delivery = encode('cloudevents-binary', transport, event)
    expect(bodyOf(delivery)).toEqual(event.payload)
    expect(delivery.contentType).toBe('application/json')
    expect(delivery.headers).toMatchObject({ [idName]: event.messageId, [subjectName]: subject, traceparent })
  })

  test('of a captured change has the images as data', () => {
    expect(bodyOf(encode('cloudevents', 'kafka', update))).toMatchObject({
      type: 'public.orders.update',
      source: '/trunkline/public.orders',
      data: { table: 'public.orders', operation: 'update', old: update.old, new: update.new },
    })
  })

  describe('is read by the SDK of CloudEvents', () => {
    // The SDK keeps milliseconds.
    const attributes = { ...expected, time: '2026-11-22T01:02:03.000Z' }

    const validated = (read: unknown): Record<string, unknown> => {
      if (!(read instanceof CloudEvent)) throw new Error('it is no CloudEvent')
      read.validate()
      return Object.fromEntries(Object.entries(read))
    }

    test('over HTTP', () => {
      const structured = encode('cloudevents', 'http', event)
      const inBody = { headers: { 'content-type': structured.contentType }, body: structured.body.toString() }
      expect(validated(HTTP.toEvent(inBody))).toMatchObject(attributes)
      const { headers, contentType, body } = encode('cloudevents-binary', 'http', { ...event, key: 'order-1' })
      const inHeaders = { headers: { ...headers, 'content-type': contentType }, body: body.toString() }
      const { subject, partitionkey } = { subject: 'order-1', partitionkey: 'order-1' }
      expect(validated(HTTP.toEvent(inHeaders))).toMatchObject({ ...attributes, subject, partitionkey })
    })

    test('over Kafka', () => {
      const { headers, contentType, body, key } = encode('cloudevents-binary', 'kafka', event)
      const value = body.toString()
      const message = { key, value, body: value, headers: { ...headers, 'content-type': contentType } }
      expect(validated(Kafka.toEvent(message))).toMatchObject(attributes)
    })

    test('over MQTT, where every user property is an attribute', () => {
      const { headers, contentType, body } = encode('cloudevents-binary', 'mqtt', event)
      const payload = body.toString()
      const properties = { PUBLISH: { 'Content Type': contentType }, 'User Properties': headers }
      const message = { headers: { ...headers, datacontenttype: contentType }, body: payload, payload, ...properties }
      // For this binding it leaves time and data as they come.
      expect(validated(MQTT.toEvent(message))).toMatchObject({ ...expected, data: payload })
      expect(Object.keys(headers)).not.toContain('x-tenant')
    })

    test('which refuses what is none', () => {
      const headers = { 'content-type': 'application/cloudevents+json' }
      const message = { headers, body: '{"specversion":"1.0","id":"1","source":"/s"}' }
      expect(() => validated(HTTP.toEvent(message))).toThrow(ValidationError)
    })
  })
})

describe('the Debezium format', () => {
  test('of an event is the outbox event router’s', () => {
    expect(encode('debezium', 'kafka', event)).toMatchObject({
      destination: 'outbox.event.order',
      key: event.key,
      headers: { id: event.messageId, traceparent, eventType: 'order-created' },
      body: Buffer.from('{"total":"12.50","lines":[1,2]}'),
    })
    expect(encode('debezium', 'kafka', { ...event, payload: null }).body.toString()).toBe('null')
  })

  test('in lines has topic, key and headers beside the value', () => {
    expect(bodyOf(encode('debezium', 'lines', event))).toEqual({
      topic: 'outbox.event.order',
      key: event.key,
      headers: { traceparent, 'x-tenant': 'seven', tenant: 'seven', id: event.messageId, eventType: 'order-created' },
      value: event.payload,
    })
  })

  test('has nothing for a resync', () => {
    expect(createFormat('debezium').encode({ ...update, operation: 'resync', old: null, new: null })).toBe(undefined)
  })
})

test('an unknown format is refused by name', () => {
  expect(() => createFormat('avro')).toThrow(expect.objectContaining({ code: 'unknown_format' }))
})

describeEachPostgres('changes of a captured table in the Debezium format', (server) => {
  const database = useTrunklineDatabase(server)

  const read = async (): Promise<Change[]> => {
    const reader = await LogReader.open(queryableOf(database()), { from: 'beginning', decoding: 'json' })
    const changes: Change[] = []
    for (;;) {
      const batch = await reader.next()
      changes.push(...batch.changes)
      if (batch.level) return changes
    }
  }

  test('have envelopes, keys by column, and values as Debezium’s defaults have them', async () => {
    await database().query(`create table account (
      region text, id int8, balance numeric(20,4), small int4, ratio float8, is_open boolean, note jsonb, raw bytea, born date,
      wakes time, seen timestamp, wakes_ms time(3), seen_ms timestamp(3), seen_s timestamp(0), met timestamptz, tags text[], primary key (region, id))`)
    await database().query("select trunkline.capture('account')")
    await database().query("set timezone to 'Asia/Kolkata'")
    await database()
      .query(`insert into account values ('eu', 9007199254740993, 12.50, 7, 0.5, true, '{"a": 1.0}', '\\x00ff',
      '1969-12-31', '00:00:01.5', '2026-01-01 00:00:00.123456', '00:00:01.5', '2026-01-01 00:00:00.123', '1969-12-31 23:59:59', '2026-01-01 05:30:00.1+05:30', '{a,b}')`)
    await database().query(`update account set note = null, seen = 'infinity', born = null`)
    await database().query('delete from account')
    await database().query('truncate account')
    const format = createFormat('debezium', { transport: 'kafka', topicPrefix: 'shop', database: 'shop' })
    const changes = await read()
    const [created, updated, deleted, truncated] = changes.map((change) => format.encode(change))
    // As a relay keeps what has failed, and encodes it again.
    for (const change of changes) {
      const again = restoredChange(storedChange(change))
      expect(JSON.stringify(again)).toBe(JSON.stringify(change))
      expect(format.encode(again)).toMatchObject({ ...format.encode(change), change: again })
    }
    expect(created).toMatchObject({ destination: 'shop.public.account', key: '{"region":"eu","id":9007199254740993}' })
    expect(created?.headers).toEqual({ id: created?.messageId })
    const text = created?.body.toString() ?? ''
    expect(text).toContain(
      '"before":null,"after":{"region":"eu","id":9007199254740993,"balance":"12.5000","small":7,"ratio":0.5,"is_open":true,' +
        '"note":"{\\"a\\":1.0}","raw":"AP8=","born":-1,"wakes":1500000,"seen":1767225600123456,"wakes_ms":1500,"seen_ms":1767225600123,"seen_s":-1000,' +
        '"met":"2026-01-01T00:00:00.100000Z","tags":["a","b"]}',
    )
    expect(JSON.parse(text)).toMatchObject({
      op: 'c',
      ts_ms: Date.parse(created?.change.createdAt ?? ''),
      transaction: null,
      source: {
        connector: 'postgresql',
        name: 'shop',
        db: 'shop',
        schema: 'public',
        table: 'account',
        snapshot: 'false',
        txId: Number(created?.change.xid),
        ts_ms: Date.parse(created?.change.createdAt ?? ''),
      },
    })
    expect(JSON.parse(updated?.body.toString() ?? '')).toMatchObject({
      op: 'u',
      before: { born: -1 },
      after: { note: null, seen: 'infinity', born: null },
    })
    expect(JSON.parse(deleted?.body.toString() ?? '')).toMatchObject({ op: 'd', before: { region: 'eu' }, after: null })
    expect(deleted?.key).toBe(created?.key)
    expect(truncated).toMatchObject({ key: null })
    expect(JSON.parse(truncated?.body.toString() ?? '')).toMatchObject({ op: 't', before: null, after: null })
  })
})
