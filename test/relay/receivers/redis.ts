import { createClient } from '@redis/client'
import { brokerPassword, startRedis, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const stream = 'campaign'

export async function openRedis(): Promise<Receiver> {
  const redis = await startRedis()
  const proxy = await startTcpProxy(`redis://127.0.0.1:${redis.port}`)
  const client = createClient({ socket: { host: '127.0.0.1', port: redis.port }, password: brokerPassword })
  client.on('error', () => {})
  await client.connect()
  return {
    sinkUrl: `redis://default:${brokerPassword}@127.0.0.1:${proxy.port}/${stream}`,
    proxy,
    server: redis,
    count: async () => client.xLen(stream),
    bodies: async () => {
      const entries = (await client.xRange(stream, '-', '+')) ?? []
      return entries.map(({ message }) => message['body'] ?? '')
    },
    [Symbol.asyncDispose]: async () => {
      client.destroy()
      await proxy.stop()
      await redis.dispose()
    },
  }
}
