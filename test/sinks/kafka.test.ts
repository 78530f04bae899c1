import { randomUUID } from 'node:crypto'
import { Admin, Consumer, type Message } from '@platformatic/kafka'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Delivery, type Sink, KafkaSink } from '../../src/index.ts'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import {
  type Kafka,
  type TcpProxy,
  kafkaPassword,
  kafkaUser,
  lacksKafka,
  startKafka,
  startTcpProxy,
} from '../support/index.ts'
import { enlarged, runSinkContract } from './run-contract.ts'

describe.skipIf(lacksKafka())('the Kafka sink', () => {
  let kafka: Kafka
  let proxy: TcpProxy
  let admin: Admin

  beforeAll(async () => {
    const proxiedPort = await freePort()
    proxy = await startTcpProxy(`kafka://127.0.0.1:${proxiedPort}`)
    kafka = await startKafka(proxy.port, proxiedPort)
    admin = new Admin({ clientId: 'test', bootstrapBrokers: [kafka.bootstrap], retries: 20, retryDelay: 200 })
  }, 120_000)
  afterAll(async () => {
    await admin.close()
    await proxy.stop()
    await kafka.dispose()
  })

  const urlOf = (topic: string): string => `kafka://${kafkaUser}:${kafkaPassword}@127.0.0.1:${proxy.port}/${topic}`

  const newTopic = async (partitions = 4, config: Readonly<Record<string, string>> = {}): Promise<string> => {
    const topic = `test-${randomUUID()}`
    const configs = Object.entries(config).map(([name, value]) => ({ name, value }))
    await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs })
    return topic
  }

  const recordsOf = async (topic: string): Promise<Message[]> => {
    const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
    const partitions = Array.from({ length: topics.get(topic)?.partitionsCount ?? 0 }, (_, partitionIndex) => ({
      partitionIndex,
      timestamp: -1n,
    }))
    const [ends] = await admin.listOffsets({ topics: [{ name: topic, partitions }] })
    const expected = (ends?.partitions ?? []).reduce((sum, { offset }) => sum + Number(offset), 0)
    const records: Message[] = []
    if (expected === 0) return records
    const consumer = new Consumer({ clientId: 'test', groupId: randomUUID(), bootstrapBrokers: [kafka.bootstrap] })
    const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false, maxWaitTime: 100 })
    for await (const record of stream) {
      records.push(record)
      if (records.length === expected) break
    }
    await consumer.close(true)
    return records
  }

  const open = async (): Promise<SinkReceiver> => {
    const topic = await newTopic()
    return {
      network: proxy,
      server: kafka,
      createSink: () => sinkFromUrl(urlOf(topic), { timeoutMs: 2_000 }),
      received: async () => (await recordsOf(topic)).map(({ value }) => value),
      refused: (delivery) => enlarged(delivery, 2_000_000),
      close: () => proxy.resume(),
    }
  }

  runSinkContract({
    open,
    has: { network: true, server: true, refused: true },
    deliverMsMax: 6_000,
    secrets: [kafkaPassword],
  })

  const started = async (sink: Sink): Promise<Sink> => {
    await sink.start()
    onTestFinished(() => sink.stop())
    return sink
  }
  const { signal } = new AbortController()

  test('places keys where Java’s producer does, and sends headers and content type', async () => {
    const topic = await newTopic(7)
    const sink = await started(sinkFromUrl(urlOf(topic)))
    // Of 7 partitions, as BuiltInPartitioner.partitionForKey of kafka-clients 4.1.1 printed them.
    const keys = ['a', 'order-1', '42', 'ключ', '']
    const deliveries = keys.map((key, index) => deliveryOf(key, index + 1))
    expect(await sink.deliver(deliveries, signal)).toEqual(keys.map(() => undefined))
    const records = await recordsOf(topic)
    expect(Object.fromEntries(records.map(({ key, partition }) => [key?.toString(), partition]))).toEqual({
      a: 5,
      'order-1': 4,
      '42': 3,
      ключ: 4,
      '': 2,
    })
    const headers = [...(records[0]?.headers ?? [])].map(([name, value]) => [name.toString(), value.toString()])
    expect(Object.fromEntries(headers)).toEqual({
      'content-type': 'application/json',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    })
  })

  test('without a topic in its URL it delivers to the destination, which the broker makes', async () => {
    const sink = await started(sinkFromUrl(urlOf('')))
    const destination = `outbox.event.${randomUUID()}`
    const deliveries = [1, 2, 3].map((number) => deliveryTo(destination, 'k', number))
    await expect
      .poll(async () => sink.deliver(deliveries, signal), { timeout: 20_000 })
      .toEqual(deliveries.map(() => undefined))
    expect((await recordsOf(destination)).length).toBeGreaterThanOrEqual(3)
  })

  test('a topic that is missing fails, and is tried again', async () => {
    const missing = `missing-${randomUUID()}`
    const sink = new KafkaSink({ url: urlOf(missing), autoCreateTopics: false, timeoutMs: 5_000 })
    await expect(sink.start()).rejects.toMatchObject({ code: 'topic_missing', retryable: true })
    const everywhere = await started(new KafkaSink({ url: urlOf(''), autoCreateTopics: false, timeoutMs: 5_000 }))
    const present = await newTopic()
    const batch = [deliveryTo(missing, 'a', 1), deliveryTo(present, 'b', 1)]
    const [failed, delivered] = await everywhere.deliver(batch, signal)
    expect(failed).toMatchObject({ code: 'topic_missing', retryable: true })
    expect(delivered).toBe(undefined)
  })

  test('wrong credentials are told, and not shown', async () => {
    const sink = sinkFromUrl(`kafka://${kafkaUser}:wr0ng-s3cret@127.0.0.1:${proxy.port}/t`, { timeoutMs: 3_000 })
    await expect(sink.start()).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.not.stringContaining('wr0ng') as string,
    })
  })
})

function deliveryTo(destination: string, key: string, number: number): Delivery {
  return { ...deliveryOf(key, number), destination }
}
