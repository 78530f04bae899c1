import { randomUUID } from 'node:crypto'
import { Connection, type SyncMessage } from 'rabbitmq-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Delivery, type Sink, sinkFromUrl } from '../../src/index.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import {
  type BrokerProcess,
  type TcpProxy,
  lacksRabbitMq,
  rabbitPassword,
  rabbitUser,
  startRabbitMq,
  startTcpProxy,
} from '../support/index.ts'
import { enlarged, runSinkContract } from './run-contract.ts'

const { signal } = new AbortController()

describe.skipIf(lacksRabbitMq())('the RabbitMQ sink', () => {
  let rabbit: BrokerProcess
  let proxy: TcpProxy
  let client: Connection

  beforeAll(async () => {
    rabbit = await startRabbitMq()
    proxy = await startTcpProxy(`amqp://127.0.0.1:${rabbit.port}`)
    client = new Connection({ url: `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${rabbit.port}`, retryHigh: 500 })
    client.on('error', () => {})
  }, 120_000)
  afterAll(async () => {
    client.unsafeDestroy()
    await proxy.stop()
    await rabbit.dispose()
  })

  const urlOf = (exchange: string): string =>
    `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${proxy.port}/${exchange}`

  const newExchange = async (routingKey = '#', queueArguments: Record<string, unknown> = {}): Promise<string> => {
    const exchange = `test-${randomUUID()}`
    await client.exchangeDeclare({ exchange, type: 'topic', durable: true })
    await client.queueDeclare({ queue: exchange, durable: true, arguments: queueArguments })
    await client.queueBind({ queue: exchange, exchange, routingKey })
    return exchange
  }

  const messagesOf = async (queue: string): Promise<SyncMessage[]> => {
    const messages: SyncMessage[] = []
    for (;;) {
      const message = await client.basicGet({ queue, noAck: true })
      if (message === undefined) return messages
      messages.push(message)
    }
  }

  const open = async (): Promise<SinkReceiver> => {
    const exchange = await newExchange()
    return {
      network: proxy,
      server: rabbit,
      createSink: () => sinkFromUrl(urlOf(exchange), { timeoutMs: 1_500 }),
      received: async () => (await messagesOf(exchange)).map(({ body }) => bodyOf(body)),
      refused: (delivery) => enlarged(delivery, 1_500_000),
      close: () => proxy.resume(),
    }
  }

  runSinkContract({
    open,
    has: { network: true, server: true, refused: true },
    deliverMsMax: 5_000,
    secrets: [rabbitPassword],
  })

  const started = async (sink: Sink): Promise<Sink> => {
    await sink.start()
    onTestFinished(() => sink.stop())
    return sink
  }

  test('sends persistent messages with id, type and headers, routed by topic', async () => {
    const exchange = await newExchange('contract')
    const sink = await started(sinkFromUrl(urlOf(exchange)))
    const delivery = deliveryOf('k', 1)
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    expect(await messagesOf(exchange)).toMatchObject([
      {
        durable: true,
        routingKey: 'contract',
        messageId: delivery.messageId,
        contentType: 'application/json',
        type: 'contract-tested',
        headers: delivery.headers,
      },
    ])
  })

  test('a message that no queue takes has failed', async () => {
    const exchange = await newExchange('another')
    const sink = await started(sinkFromUrl(urlOf(exchange)))
    const delivery = deliveryOf('k', 1)
    expect(await sink.deliver([delivery, deliveryOf('k', 2)], signal)).toMatchObject([
      { code: 'unroutable', retryable: true },
      { code: 'not_attempted' },
    ])
    await client.queueBind({ queue: exchange, exchange, routingKey: 'contract' })
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
  })

  test('a full queue that refuses is told', async () => {
    const exchange = await newExchange('#', { 'x-max-length': 1, 'x-overflow': 'reject-publish' })
    const sink = await started(sinkFromUrl(urlOf(exchange)))
    expect(await sink.deliver([deliveryOf('k', 1)], signal)).toEqual([undefined])
    const outcomes = await sink.deliver([deliveryOf('k', 2)], signal)
    expect(outcomes).toMatchObject([{ code: 'refused_by_queue', retryable: true }])
  })

  test('a publish that the broker refuses has failed, also after another was too large', async () => {
    const internal = `test-${randomUUID()}`
    await client.exchangeDeclare({ exchange: internal, type: 'topic', internal: true })
    const present = await newExchange()
    const sink = await started(sinkFromUrl(urlOf('')))
    const to = (destination: string, number: number): Delivery => ({ ...deliveryOf('k', number), destination })
    const large = await sink.deliver([enlarged(to(present, 1), 1_500_000)], signal)
    expect(large).toMatchObject([{ code: 'message_too_large', retryable: false }])
    expect(await sink.deliver([to(internal, 2)], signal)).toMatchObject([{ retryable: true }])
    expect(await sink.deliver([to(present, 3)], signal)).toEqual([undefined])
    expect(await messagesOf(present)).toHaveLength(1)
  })

  test('a missing exchange is told at start, or fails its own deliveries alone', async () => {
    const missing = `missing-${randomUUID()}`
    await expect(sinkFromUrl(urlOf(missing)).start()).rejects.toMatchObject({
      code: 'exchange_missing',
      retryable: true,
    })
    const sink = await started(sinkFromUrl(urlOf('')))
    const present = await newExchange()
    const batch = [
      { ...deliveryOf('a', 1), destination: missing },
      { ...deliveryOf('b', 1), destination: present },
    ]
    expect(await sink.deliver(batch, signal)).toMatchObject([{ code: 'exchange_missing' }, undefined])
    await client.exchangeDeclare({ exchange: missing, type: 'topic' })
    await client.queueBind({ queue: present, exchange: missing, routingKey: '#' })
    expect(await sink.deliver(batch.slice(0, 1), signal)).toEqual([undefined])
  })

  test('headers that are too large fail their own delivery for good', async () => {
    const exchange = await newExchange()
    const sink = await started(sinkFromUrl(urlOf(exchange)))
    const large = { ...deliveryOf('large', 1), headers: { 'x-large': 'y'.repeat(140_000) } }
    const below = { ...deliveryOf('below', 1), headers: { 'x-large': 'y'.repeat(100_000) } }
    const batch = [large, below, deliveryOf('other', 1)]
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await sink.deliver(batch, signal)).toMatchObject([
        { code: 'message_too_large', retryable: false },
        undefined,
        undefined,
      ])
    }
    expect(await messagesOf(exchange)).toHaveLength(4)
  })

  test('a topic that is too long for a routing key fails its own delivery for good', async () => {
    const sink = await started(sinkFromUrl(urlOf(await newExchange())))
    const long = deliveryOf('long', 1)
    const batch = [{ ...long, change: { ...long.change, topic: 'é'.repeat(128) } }, deliveryOf('other', 1)]
    expect(await sink.deliver(batch, signal)).toMatchObject([{ code: 'invalid_topic', retryable: false }, undefined])
  })

  test('wrong credentials are told, and not shown', async () => {
    const sink = sinkFromUrl(`amqp://${rabbitUser}:wr0ng-s3cret@127.0.0.1:${proxy.port}/e`, { timeoutMs: 5_000 })
    await expect(sink.start()).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.not.stringContaining('wr0ng') as string,
    })
  })
})

/** The client parses JSON by itself. */
function bodyOf(body: unknown): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
}
