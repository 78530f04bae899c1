import { randomUUID } from 'node:crypto'
import { DeliverPolicy, type JetStreamManager, type JsMsg, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { type NatsConnection, connect } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Sink, sinkFromUrl } from '../../src/index.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import {
  type BrokerProcess,
  type TcpProxy,
  brokerPassword,
  brokerUser,
  eventually,
  lacksNats,
  messageBytesMax,
  startNats,
  startTcpProxy,
} from '../support/index.ts'
import { enlarged, runSinkContract } from './run-contract.ts'

const { signal } = new AbortController()

describe.skipIf(lacksNats())('the NATS sink', () => {
  let nats: BrokerProcess
  let proxy: TcpProxy
  let client: NatsConnection
  let manager: JetStreamManager

  beforeAll(async () => {
    nats = await startNats()
    proxy = await startTcpProxy(`nats://127.0.0.1:${nats.port}`)
    client = await connect({
      servers: `127.0.0.1:${nats.port}`,
      user: brokerUser,
      pass: brokerPassword,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
    })
    manager = await jetstreamManager(client)
  })
  afterAll(async () => {
    await client.close()
    await proxy.stop()
    await nats.dispose()
  })

  const urlOf = (subject: string): string => `nats://${brokerUser}:${brokerPassword}@127.0.0.1:${proxy.port}/${subject}`

  const newStream = async (options: { max_msg_size?: number; max_msgs?: number } = {}): Promise<string> => {
    const name = `test-${randomUUID()}`
    await manager.streams.add({ name, subjects: [name, `${name}.>`], ...options })
    return name
  }

  const messagesOf = async (stream: string): Promise<JsMsg[]> => {
    const { state } = await eventually(() => manager.streams.info(stream), { what: 'the server answers' })
    if (state.messages === 0) return []
    const consumer = await jetstream(client).consumers.get(stream, { deliver_policy: DeliverPolicy.All })
    const messages: JsMsg[] = []
    for await (const message of await consumer.fetch({ max_messages: state.messages, expires: 10_000 })) {
      messages.push(message)
    }
    return messages
  }

  const open = async (): Promise<SinkReceiver> => {
    const stream = await newStream()
    return {
      network: proxy,
      server: nats,
      createSink: () => sinkFromUrl(urlOf(stream), { timeoutMs: 1_000 }),
      received: async () => (await messagesOf(stream)).map(({ data }) => Buffer.from(data)),
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

  test('sends Nats-Msg-Id and headers; a repetition is stored once', async () => {
    const stream = await newStream()
    const sink = await started(sinkFromUrl(urlOf(stream)))
    const delivery = deliveryOf('k', 1)
    const withHeaders = { ...delivery, headers: { ...delivery.headers, 'Nats-Rollup': 'all', 'x-lines': 'a\r\nb: c' } }
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await sink.deliver([withHeaders], signal)).toEqual([undefined])
    }
    const messages = await messagesOf(stream)
    const headers = messages.map(({ headers: found }) => Object.fromEntries(found ?? []))
    expect(headers).toEqual([
      {
        'Nats-Msg-Id': [delivery.messageId],
        'Content-Type': ['application/json'],
        traceparent: [delivery.headers['traceparent']],
        'x-lines': ['a b: c'],
      },
    ])
  })

  test('without a subject in its URL it delivers to the destination', async () => {
    const stream = await newStream()
    const sink = await started(sinkFromUrl(urlOf('')))
    const delivery = { ...deliveryOf('k', 1), destination: `${stream}.orders` }
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    expect((await messagesOf(stream)).map(({ subject }) => subject)).toEqual([`${stream}.orders`])
  })

  test('a subject that no stream takes is told at start, or fails its own deliveries alone', async () => {
    const missing = `missing-${randomUUID()}`
    await expect(sinkFromUrl(urlOf(missing)).start()).rejects.toMatchObject({ code: 'stream_missing', retryable: true })
    const sink = await started(sinkFromUrl(urlOf('')))
    const stream = await newStream()
    const batch = [
      { ...deliveryOf('a', 1), destination: missing },
      { ...deliveryOf('b', 1), destination: stream },
      { ...deliveryOf('c', 1), destination: 'no subject' },
    ]
    expect(await sink.deliver(batch, signal)).toMatchObject([
      { code: 'stream_missing', retryable: true },
      undefined,
      { code: 'invalid_subject', retryable: false },
    ])
  })

  test('headers that are too large fail their own delivery for good', async () => {
    const sink = await started(sinkFromUrl(urlOf(await newStream())))
    const large = { ...deliveryOf('large', 1), headers: { 'x-large': 'y'.repeat(70_000) } }
    const below = { ...deliveryOf('below', 1), headers: { 'x-large': 'y'.repeat(60_000) } }
    const batch = [large, below, deliveryOf('other', 1)]
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await sink.deliver(batch, signal)).toMatchObject([
        { code: 'message_too_large', retryable: false },
        undefined,
        undefined,
      ])
    }
  })

  test('tells the limits of a stream', async () => {
    const small = await started(sinkFromUrl(urlOf(await newStream({ max_msg_size: 1_000 }))))
    const outcomes = await small.deliver([enlarged(deliveryOf('k', 1), 2_000), deliveryOf('j', 1)], signal)
    expect(outcomes).toMatchObject([{ code: 'message_too_large', retryable: false }, undefined])
  })

  test('wrong credentials are told, and not shown', async () => {
    const sink = sinkFromUrl(`nats://${brokerUser}:wr0ng-s3cret@127.0.0.1:${proxy.port}/s`, { timeoutMs: 3_000 })
    await expect(sink.start()).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.not.stringContaining('wr0ng') as string,
    })
  })
})
