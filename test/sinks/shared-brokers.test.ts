import { randomUUID } from 'node:crypto'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { Admin } from '@platformatic/kafka'
import { createClient } from '@redis/client'
import { connectAsync } from 'mqtt'
import { Connection } from 'rabbitmq-client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { sinkFromUrl } from '../../src/index.ts'
import { deliveriesOf, interleaved } from '../../src/testing/sink-contract/deliveries.ts'
import { deliverAll } from '../../src/testing/sink-contract/driver.ts'
import { type BrokerKind, eventually, findSharedBroker, startTcpProxy } from '../support/index.ts'

/** Makes a place with this name for deliveries; what it returns counts those that are held there. */
type Prepare = (url: URL, place: string) => Promise<() => Promise<number>>

const brokers: Readonly<Record<BrokerKind, Prepare>> = {
  REDIS: async (url, place) => {
    const client = createClient({ url: url.href })
    await client.connect()
    onTestFinished(async () => {
      await client.del(place)
      client.destroy()
    })
    return async () => client.xLen(place)
  },
  RABBITMQ: async (url, place) => {
    const client = new Connection(url.href)
    await client.exchangeDeclare({ exchange: place, type: 'fanout', durable: true })
    await client.queueDeclare({ queue: place, durable: true })
    await client.queueBind({ exchange: place, queue: place })
    onTestFinished(async () => {
      await client.queueDelete(place)
      await client.exchangeDelete({ exchange: place })
      await client.close()
    })
    return async () => (await client.queueDeclare({ queue: place, passive: true })).messageCount
  },
  NATS: async (url, place) => {
    const client = await connectNats({ servers: url.host })
    const { streams } = await jetstreamManager(client)
    await streams.add({ name: place, subjects: [place] })
    onTestFinished(async () => {
      await streams.delete(place)
      await client.close()
    })
    return async () => (await streams.info(place)).state.messages
  },
  MQTT: async (url, place) => {
    const client = await connectAsync(url.href, { protocolVersion: 5 })
    let count = 0
    client.on('message', () => (count += 1))
    await client.subscribeAsync(place, { qos: 1 })
    onTestFinished(() => client.endAsync())
    return async () => count
  },
  KAFKA: async (url, place) => {
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: [url.host], retries: 20, retryDelay: 200 })
    await admin.createTopics({ topics: [place], partitions: 1, replicas: 1 })
    onTestFinished(async () => {
      await admin.deleteTopics({ topics: [place] })
      await admin.close()
    })
    return async () => {
      const [ends] = await admin.listOffsets({
        topics: [{ name: place, partitions: [{ partitionIndex: 0, timestamp: -1n }] }],
      })
      return Number(ends?.partitions[0]?.offset)
    }
  },
}

describe('a broker that runs beside the tests', async () => {
  for (const kind of Object.keys(brokers) as BrokerKind[]) {
    const found = await findSharedBroker(kind)
    test.skipIf(found === undefined)(
      `${kind} gets what is delivered, over connections that are reset`,
      { timeout: 90_000 },
      async () => {
        const url = new URL(found ?? '')
        const place = `trunkline-${randomUUID()}`
        const count = await brokers[kind](url, place)
        // Kafka's clients go where it tells them to, past any proxy.
        await using proxy = kind === 'KAFKA' ? undefined : await startTcpProxy(url.href)
        const target = new URL(proxy?.url ?? url.href)
        target.pathname = place
        const sink = sinkFromUrl(target.href, { timeoutMs: 10_000 })
        await sink.start()
        const lanes = ['a', 'b', 'c'].map((key) => deliveriesOf(key, 50))
        // Seldom enough that a busy machine connects in between.
        const resets = setInterval(() => proxy?.reset(), 200)
        await Promise.all(lanes.map((lane) => deliverAll(sink, interleaved([lane]), 60_000))).finally(() =>
          clearInterval(resets),
        )
        await sink.stop()
        await eventually(async () => (await count()) >= 150, { what: `${kind} holds all of them` })
        expect(await count()).toBeGreaterThanOrEqual(150)
      },
    )
  }
})
