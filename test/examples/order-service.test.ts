import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Admin, Consumer, type Message, Producer } from '@platformatic/kafka'
import { expect, onTestFinished, test } from 'vitest'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { createDatabase, describeEachPostgres, eventually, findSharedBroker, useDatabase } from '../support/index.ts'

const kafka = await findSharedBroker('KAFKA')
const pathOf = (name: string): string => fileURLToPath(new URL(`../../examples/${name}.ts`, import.meta.url))

describeEachPostgres('examples/order-service.ts and order-billing.ts', (server) => {
  const database = useDatabase(server)

  test.skipIf(kafka === undefined)(
    'each order is billed once, through kill -9 of both and a record that comes twice',
    { timeout: 240_000 },
    async () => {
      const { host } = new URL(kafka ?? '')
      const topic = `orders-${randomUUID()}`
      const admin = new Admin({ clientId: 'test', bootstrapBrokers: [host], retries: 20, retryDelay: 200 })
      await admin.createTopics({ topics: [topic], partitions: 4, replicas: 1 })
      onTestFinished(async () => {
        await admin.deleteTopics({ topics: [topic] })
        await admin.close()
      })
      const billing = await createDatabase(server)
      onTestFinished(() => billing.drop())
      const port = await freePort()
      const target = `kafka://${host}/${topic}`
      const startService = async (): Promise<Example> =>
        start('order-service', 'listening', { DATABASE_URL: database().url, KAFKA: target, PORT: String(port) })
      const startBilling = async (): Promise<Example> =>
        start('order-billing', 'reading', { DATABASE_URL: billing.url, KAFKA: target })
      const post = async (path: string, body?: object): Promise<number> =>
        (await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', body: JSON.stringify(body ?? {}) })).status
      const invoices = async (): Promise<unknown[]> =>
        billing.query('select order_id, customer, amount::text from invoice order by order_id')

      let [service, consumer] = [await startService(), await startBilling()]
      expect(await post('/orders', { customer: 'Ada', amount: '12.50' })).toBe(201)
      // The row is refused, and so there is no event.
      expect(await post('/orders', { customer: 'Nobody', amount: '-1' })).toBe(400)
      expect(await post('/orders/1/ship')).toBe(200)
      expect(await post('/orders/1/ship')).toBe(409)
      const first = { order_id: '1', customer: 'Ada', amount: '12.50' }
      await eventually(async () => (await invoices()).length === 1, { what: 'one is billed', timeoutMs: 30_000 })

      await kill(consumer)
      expect(await post('/orders', { customer: 'Grace', amount: '3' })).toBe(201)
      await kill(service)
      ;[service, consumer] = [await startService(), await startBilling()]
      await eventually(async () => (await invoices()).length === 2, { what: 'the other is billed', timeoutMs: 60_000 })

      const records = await recordsOf(host, topic)
      expect(new Set(records.map((record) => `${headerOf(record, 'ce_type')} ${record.key.toString()}`))).toEqual(
        new Set(['order-placed 1', 'order-shipped 1', 'order-placed 3']),
      )
      const placed = records.find((record) => headerOf(record, 'ce_type') === 'order-placed')!
      await sendAgain(host, topic, placed)
      await eventually(() => consumer.output().includes(`order ${placed.key.toString()} was billed before`), {
        what: 'it is known',
        timeoutMs: 30_000,
      })
      expect(await invoices()).toEqual([first, { order_id: '3', customer: 'Grace', amount: '3' }])

      for (const { process: child } of [service, consumer]) {
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        expect(await ended).toEqual([0, null])
      }
    },
  )
})

interface Example {
  readonly process: ChildProcess
  readonly output: () => string
}

async function start(name: string, isUp: string, env: Readonly<Record<string, string>>): Promise<Example> {
  const child = spawn(process.execPath, [pathOf(name)], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  await eventually(() => output.includes(isUp), { timeoutMs: 60_000, what: `${name} is up` })
  return { process: child, output: () => output }
}

async function kill({ process: child }: Example): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

async function recordsOf(host: string, topic: string): Promise<Message[]> {
  const consumer = new Consumer({ clientId: 'test', groupId: randomUUID(), bootstrapBrokers: [host] })
  const offsets = await consumer.listOffsets({ topics: [topic] })
  const expected = (offsets.get(topic) ?? []).reduce((sum, offset) => sum + Number(offset), 0)
  const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false, maxWaitTime: 100 })
  const records: Message[] = []
  for await (const record of stream) {
    records.push(record)
    if (records.length === expected) break
  }
  await consumer.close(true)
  return records
}

async function sendAgain(host: string, topic: string, { key, value, headers }: Message): Promise<void> {
  const producer = new Producer({ clientId: 'test', bootstrapBrokers: [host] })
  await producer.send({ messages: [{ topic, key, value, headers: new Map(headers) }] })
  await producer.close()
}

function headerOf({ headers }: Message, name: string): string | undefined {
  return [...headers].find(([header]) => header.toString() === name)?.[1].toString()
}
