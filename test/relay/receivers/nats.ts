import { DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { brokerPassword, brokerUser, startNats, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const stream = 'campaign'

/** A stream without a duplicate window to speak of: what is repeated shall be seen. */
export async function openNats(): Promise<Receiver> {
  const nats = await startNats()
  const proxy = await startTcpProxy(`nats://127.0.0.1:${nats.port}`)
  const client = await connect({
    servers: `127.0.0.1:${nats.port}`,
    user: brokerUser,
    pass: brokerPassword,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
  })
  const manager = await jetstreamManager(client)
  await manager.streams.add({ name: stream, subjects: [stream], duplicate_window: 100_000_000 })
  const count = async (): Promise<number> => (await manager.streams.info(stream)).state.messages
  return {
    sinkUrl: `nats://${brokerUser}:${brokerPassword}@127.0.0.1:${proxy.port}/${stream}`,
    proxy,
    server: nats,
    count,
    bodies: async () => {
      const expected = await count()
      const consumer = await jetstream(client).consumers.get(stream, { deliver_policy: DeliverPolicy.All })
      const bodies: string[] = []
      while (bodies.length < expected) {
        const wanted = Math.min(1_000, expected - bodies.length)
        for await (const message of await consumer.fetch({ max_messages: wanted, expires: 10_000 })) {
          bodies.push(Buffer.from(message.data).toString())
        }
      }
      return bodies
    },
    [Symbol.asyncDispose]: async () => {
      await client.close()
      await proxy.stop()
      await nats.dispose()
    },
  }
}
