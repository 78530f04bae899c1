import { randomUUID } from 'node:crypto'
import { type RedisClientType, RESP_TYPES, createClient } from '@redis/client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Sink, sinkFromUrl } from '../../src/index.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveriesOf, deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import {
  type BrokerProcess,
  type TcpProxy,
  brokerPassword,
  eventually,
  lacksRedis,
  messageBytesMax,
  startRedis,
  startTcpProxy,
} from '../support/index.ts'
import { enlarged, runSinkContract } from './run-contract.ts'

const { signal } = new AbortController()

describe.skipIf(lacksRedis())('the Redis sink', () => {
  let redis: BrokerProcess
  let proxy: TcpProxy
  let client: RedisClientType

  beforeAll(async () => {
    redis = await startRedis()
    proxy = await startTcpProxy(`redis://127.0.0.1:${redis.port}`)
    client = createClient({ socket: { host: '127.0.0.1', port: redis.port }, password: brokerPassword })
    client.on('error', () => {})
    await client.connect()
  })
  afterAll(async () => {
    client.destroy()
    await proxy.stop()
    await redis.dispose()
  })

  const urlOf = (stream: string, password = brokerPassword): string =>
    `redis://default:${password}@127.0.0.1:${proxy.port}/${stream}`

  const entriesOf = async (stream: string): Promise<Record<string, string>[]> => {
    const entries = await eventually(async () => (await client.xRange(stream, '-', '+')) ?? [], {
      what: 'the server answers',
    })
    return entries.map(({ message }) => message)
  }

  const open = async (): Promise<SinkReceiver> => {
    const stream = `test-${randomUUID()}`
    return {
      network: proxy,
      server: redis,
      createSink: () => sinkFromUrl(urlOf(stream), { timeoutMs: 1_000 }),
      received: async () => (await entriesOf(stream)).map(({ body }) => Buffer.from(body ?? '')),
      refused: (delivery) => enlarged(delivery, messageBytesMax + 1),
      close: () => proxy.resume(),
    }
  }

  runSinkContract({
    open,
    has: { network: true, server: true, refused: true },
    deliverMsMax: 3_000,
    secrets: [brokerPassword],
  })

  const started = async (sink: Sink): Promise<Sink> => {
    await sink.start()
    onTestFinished(() => sink.stop())
    return sink
  }

  test('an entry has id, key, content type, headers and the body byte by byte', async () => {
    const stream = `test-${randomUUID()}`
    const sink = await started(sinkFromUrl(urlOf(stream)))
    const bytes = Buffer.from([0, 255, 13, 10, 128])
    const delivery = { ...deliveryOf('k', 1), body: bytes, headers: { a: '1', key: 'forged', body: 'forged' } }
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    const asBytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
    const [entry] = (await asBytes.xRange(stream, '-', '+')) ?? []
    const fields = Object.fromEntries(Object.entries(entry?.message ?? {}))
    expect(fields['body']).toEqual(bytes)
    expect((await entriesOf(stream))[0]).toMatchObject({
      'message-id': delivery.messageId,
      key: 'k',
      'content-type': 'application/json',
      a: '1',
    })
  })

  test('without a stream in its URL it delivers to the destination; lengthMax trims', async () => {
    const destination = `outbox.event.${randomUUID()}`
    const sink = await started(sinkFromUrl(urlOf(''), { redis: { lengthMax: 100 } }))
    const deliveries = deliveriesOf('k', 200)
    for (const delivery of deliveries) Object.assign(delivery, { destination })
    expect(await sink.deliver(deliveries, signal)).toEqual(deliveries.map(() => undefined))
    expect(await client.xLen(destination)).toBeLessThan(200)
  })

  test('tells what it cannot write to, at start or for its deliveries alone', async () => {
    const taken = `taken-${randomUUID()}`
    await client.set(taken, 'text')
    await expect(sinkFromUrl(urlOf(taken)).start()).rejects.toMatchObject({ code: 'not_a_stream', retryable: true })
    const sink = await started(sinkFromUrl(urlOf('')))
    const batch = [
      { ...deliveryOf('a', 1), destination: taken },
      { ...deliveryOf('b', 1), destination: `test-${randomUUID()}` },
    ]
    expect(await sink.deliver(batch, signal)).toMatchObject([{ code: 'not_a_stream', retryable: true }, undefined])
  })

  test('a server without memory left refuses, and takes it later', async () => {
    const sink = await started(sinkFromUrl(urlOf(`test-${randomUUID()}`)))
    await client.configSet('maxmemory', '1mb')
    try {
      const outcomes = await sink.deliver([deliveryOf('k', 1)], signal)
      expect(outcomes).toMatchObject([{ code: 'out_of_memory', retryable: true }])
    } finally {
      await client.configSet('maxmemory', '0')
    }
    expect(await sink.deliver([deliveryOf('k', 1)], signal)).toEqual([undefined])
  })

  test('wrong credentials are told, and not shown', async () => {
    const sink = sinkFromUrl(urlOf('s', 'wr0ng-s3cret'), { timeoutMs: 3_000 })
    await expect(sink.start()).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.not.stringContaining('wr0ng') as string,
    })
  })
})
