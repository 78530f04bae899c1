import { Connection } from 'rabbitmq-client'
import { eventually, rabbitPassword, rabbitUser, startRabbitMq, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const place = 'campaign'

/** One queue, which keeps all until it is asked for. */
export async function openRabbitMq(): Promise<Receiver> {
  const rabbit = await startRabbitMq()
  const proxy = await startTcpProxy(`amqp://127.0.0.1:${rabbit.port}`)
  const url = `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${rabbit.port}`
  const client = new Connection({ url, retryHigh: 500 })
  client.on('error', () => {})
  await client.exchangeDeclare({ exchange: place, type: 'topic', durable: true })
  await client.queueDeclare({ queue: place, durable: true })
  await client.queueBind({ queue: place, exchange: place, routingKey: '#' })
  const taken: string[] = []
  const waiting = async (): Promise<number> =>
    (await client.queueDeclare({ queue: place, durable: true, passive: true })).messageCount
  return {
    sinkUrl: `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${proxy.port}/${place}`,
    proxy,
    server: rabbit,
    count: async () => taken.length + (await waiting()),
    bodies: async () => {
      const expected = taken.length + (await eventually(waiting, { what: 'RabbitMQ answers', timeoutMs: 30_000 }))
      // One by one: a consumer that ends would drop what the broker sends it meanwhile, while relays still deliver.
      const channel = await client.acquire()
      while (taken.length < expected) {
        const message = await channel.basicGet({ queue: place, noAck: true })
        if (message === undefined) break
        const { body } = message as { body: unknown }
        taken.push(Buffer.isBuffer(body) ? body.toString() : JSON.stringify(body))
      }
      await channel.close()
      return [...taken]
    },
    [Symbol.asyncDispose]: async () => {
      client.unsafeDestroy()
      await proxy.stop()
      await rabbit.dispose()
    },
  }
}
