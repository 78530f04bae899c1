/**
 * Reads the orders that examples/order-service.ts publishes and bills each once, however often Kafka delivers it: the invoice,
 * and the memory that this message was handled, are one transaction of this service's own database. Run it:
 *
 *     DATABASE_URL=postgres://owner:secret@localhost:5432/billing KAFKA=kafka://localhost:9092/orders node examples/order-billing.ts
 *
 * The inbox is one SQL function: a consumer in another language calls trunkline.inbox_claim(consumer, message_id) in its
 * transaction, and goes on where that says true. In an application the import is from 'trunkline'.
 */
import { Consumer } from '@platformatic/kafka'
import { createTrunkline } from '../src/index.ts'

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
await trunkline.migrate()
await trunkline.pool.query(
  'create table if not exists invoice (order_id text primary key, customer text not null, amount numeric not null)',
)
// It forgets messages that are older than a broker keeps them.
await trunkline.start()

const kafka = new URL(process.env['KAFKA'] ?? 'kafka://localhost:9092/orders')
const consumer = new Consumer({
  clientId: 'billing',
  groupId: 'billing',
  bootstrapBrokers: [kafka.host],
  autocreateTopics: true,
  retries: true,
  // Its partitions go to the others this long after it died.
  sessionTimeout: 10_000,
  rebalanceTimeout: 10_000,
  heartbeatInterval: 1_000,
})
const stream = await consumer.consume({
  topics: [kafka.pathname.slice(1)],
  autocommit: false,
  mode: 'committed',
  fallbackMode: 'earliest',
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stream.close())
console.log('reading')

/** True: this order was not billed before. */
async function bill(messageId: string, order: { id: string; customer: string; amount: string }): Promise<boolean> {
  return trunkline.write(async (tx) =>
    trunkline.inbox.once(tx, 'billing', messageId, async () => {
      await tx.query('insert into invoice (order_id, customer, amount) values ($1, $2, $3)', [
        order.id,
        order.customer,
        order.amount,
      ])
    }),
  )
}

for await (const record of stream) {
  const about = new Map([...record.headers].map(([name, text]) => [name.toString(), text.toString()]))
  if (about.get('ce_type') === 'order-placed') {
    const order = JSON.parse(record.value.toString()) as { id: string; customer: string; amount: string }
    const isNew = await bill(about.get('ce_id') ?? '', order)
    console.log(isNew ? `billed order ${order.id}` : `order ${order.id} was billed before`)
  }
  // Only now: if this process dies before, the message comes again, and the inbox knows it.
  await record.commit()
}
await consumer.close()
await trunkline.stop()
