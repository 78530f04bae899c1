import { Admin, Consumer } from '@platformatic/kafka'
import { freePort } from '../../../src/testing/embedded/free-port.ts'
import { kafkaPassword, kafkaUser, startKafka, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const topic = 'campaign'
const partitions = 4

export async function openKafka(): Promise<Receiver> {
  const proxiedPort = await freePort()
  const proxy = await startTcpProxy(`kafka://127.0.0.1:${proxiedPort}`)
  const kafka = await startKafka(proxy.port, proxiedPort)
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [kafka.bootstrap], retries: 20, retryDelay: 200 })
  await admin.createTopics({ topics: [topic], partitions, replicas: 1 })
  const count = async (): Promise<number> => {
    const wanted = Array.from({ length: partitions }, (_, partitionIndex) => ({ partitionIndex, timestamp: -1n }))
    const [ends] = await admin.listOffsets({ topics: [{ name: topic, partitions: wanted }] })
    return (ends?.partitions ?? []).reduce((sum, { offset }) => sum + Number(offset), 0)
  }
  return {
    sinkUrl: `kafka://${kafkaUser}:${kafkaPassword}@127.0.0.1:${proxy.port}/${topic}`,
    proxy,
    server: kafka,
    count,
    bodies: async () => {
      const expected = await count()
      const consumer = new Consumer({ clientId: 'test', groupId: 'campaign', bootstrapBrokers: [kafka.bootstrap] })
      const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false, maxWaitTime: 100 })
      const bodies: string[] = []
      // A key has one partition, and a partition's records come in its order.
      for await (const { value } of stream) {
        bodies.push(value.toString())
        if (bodies.length === expected) break
      }
      await consumer.close(true)
      return bodies
    },
    [Symbol.asyncDispose]: async () => {
      await admin.close()
      await proxy.stop()
      await kafka.dispose()
    },
  }
}
