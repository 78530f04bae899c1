import { Connection } from 'rabbitmq-client'
import { rabbitPassword, rabbitUser, startRabbitMq, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const place = 'campaign'
/** Messages that the broker sends ahead of their acknowledgement. */
const prefetchCount = 1_000

/** One queue, and one consumer of it that acknowledges: what the broker could not send comes again. */
export async function openRabbitMq(): Promise<Receiver> {
  const rabbit = await startRabbitMq()
  const proxy = await startTcpProxy(`amqp://127.0.0.1:${rabbit.port}`)
  const url = `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${rabbit.port}`
  const client = new Connection({ url, retryHigh: 500 })
  // The broker is stopped and started; the consumer comes back by itself.
  client.on('error', () => {})
  await client.exchangeDeclare({ exchange: place, type: 'topic', durable: true })
  await client.queueDeclare({ queue: place, durable: true })
  await client.queueBind({ queue: place, exchange: place, routingKey: '#' })
  const taken: string[] = []
  const seen = new Set<string>()
  const consumer = client.createConsumer(
    { queue: place, queueOptions: { durable: true }, qos: { prefetchCount } },
    ({ body, redelivered }: { body: unknown; redelivered: boolean }) => {
      const text = Buffer.isBuffer(body) ? body.toString() : JSON.stringify(body)
      // A broker that was stopped sends what was not acknowledged once more: that is no repetition of the relay's.
      if (redelivered && seen.has(text)) return
      seen.add(text)
      taken.push(text)
    },
  )
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  consumer.on('ready', resolve)
  consumer.on('error', reject)
  await promise
  return {
    sinkUrl: `amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${proxy.port}/${place}`,
    proxy,
    server: rabbit,
    count: () => Promise.resolve(taken.length),
    bodies: () => Promise.resolve([...taken]),
    [Symbol.asyncDispose]: async () => {
      client.unsafeDestroy()
      await proxy.stop()
      await rabbit.dispose()
    },
  }
}
