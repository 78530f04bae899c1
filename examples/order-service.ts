/**
 * An order service that saves an order and tells Kafka of it, both or neither: the event is a row of the same transaction, and
 * a relay in the same process delivers it. Its consumer is examples/order-billing.ts. Run it:
 *
 *     DATABASE_URL=postgres://owner:secret@localhost:5432/shop KAFKA=kafka://localhost:9092/orders node examples/order-service.ts
 *     curl -d '{"customer":"Ada","amount":"12.50"}' localhost:8080/orders
 *     curl -X POST localhost:8080/orders/1/ship
 *
 * Kafka may be down meanwhile, and this process may be killed at any moment: whatever was answered with 201 gets there. Start it
 * several times, and the relays share the keys. In an application the imports are from 'trunkline'.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { createTrunkline } from '../src/index.ts'

interface Answer {
  readonly status: number
  readonly body: unknown
}

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
// In production a release runs these two, as the owner of the schema.
await trunkline.migrate()
await trunkline.pool.query(
  `create table if not exists "order" (
     id bigint generated always as identity primary key, customer text not null, amount numeric not null check (amount > 0), shipped_at timestamptz
   )`,
)

const relay = trunkline.relay({
  name: 'orders',
  topics: ['order'],
  sink: process.env['KAFKA'] ?? 'kafka://localhost:9092/orders',
  // Id, type and subject are headers of the record, the payload is its value.
  format: 'cloudevents-binary',
})
relay.on('error', (error) => console.error(error.message))
relay.on('dead-letter', ({ delivery, error }) => console.error(`given up: ${delivery.messageId}: ${error.message}`))

async function place({ customer, amount }: Record<string, unknown>): Promise<Answer> {
  return trunkline.write(async (tx) => {
    const { rows } = await tx.query<{ id: string }>(
      'insert into "order" (customer, amount) values ($1, $2) returning id::text',
      [customer, amount],
    )
    const id = rows[0]?.id ?? ''
    await trunkline.emit(tx, { topic: 'order', key: id, type: 'order-placed', payload: { id, customer, amount } })
    return { status: 201, body: { id } }
  })
}

async function ship(id: string): Promise<Answer> {
  return trunkline.write(async (tx) => {
    // The row's lock orders the events of one order, as its commits are ordered.
    const { rowCount } = await tx.query(
      'update "order" set shipped_at = now() where id::text = $1 and shipped_at is null',
      [id],
    )
    if (rowCount === 0) return { status: 409, body: { error: 'there is no such order, or it has left' } }
    await trunkline.emit(tx, { topic: 'order', key: id, type: 'order-shipped', payload: { id } })
    return { status: 200, body: { id } }
  })
}

async function answer(request: IncomingMessage): Promise<Answer> {
  const shipped = /^\/orders\/(\d+)\/ship$/.exec(request.url ?? '')
  if (request.method === 'POST' && shipped?.[1] !== undefined) return ship(shipped[1])
  if (request.method !== 'POST' || request.url !== '/orders') return { status: 404, body: { error: 'not found' } }
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += chunk
  try {
    return await place(JSON.parse(text) as Record<string, unknown>)
  } catch (error) {
    // Neither the order nor its event is there.
    return { status: 400, body: { error: (error as Error).message } }
  }
}

const server = createServer((request, response) => {
  void answer(request)
    .catch((error: unknown) => ({ status: 500, body: { error: String(error) } }))
    .then(({ status, body }) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    })
})

/** Orders are taken whether Kafka is there or not: the relay starts when it is. */
async function startRelay(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await relay.start()
      console.log('relaying')
      return
    } catch (error) {
      console.error((error as Error).message)
      await new Promise((resolve) => setTimeout(resolve, 1_000))
    }
  }
}

const stop = new AbortController()
server.listen(Number(process.env['PORT'] ?? 8080))
await once(server, 'listening')
console.log('listening')
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
const started = startRelay(stop.signal)
if (!stop.signal.aborted) await once(stop.signal, 'abort')
await new Promise((resolve) => {
  server.close(resolve)
  server.closeIdleConnections()
})
await started
await trunkline.stop()
