/**
 * A webhook receiver in a process of its own, which bills each order once: what it writes and the inbox's memory of the message
 * are one transaction. Started by deliveries.ts with DATABASE_URL, TRUNKLINE_SCHEMA and RECEIVER_PORT (0: any) set.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo } from 'node:net'
import { silentLogger } from '../../core/index.ts'
import { createTrunkline } from '../../index.ts'
import { inTransaction } from '../../postgres/index.ts'
import { nowMs } from './clock.ts'
import { endWithMain, tellMain } from './helper.ts'
import { type Order } from './orders.ts'

const trunkline = createTrunkline({
  url: process.env['DATABASE_URL'],
  schema: process.env['TRUNKLINE_SCHEMA'],
  logger: silentLogger,
})

async function receive(request: IncomingMessage): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const atMs = nowMs()
  const { order, customer, number } = JSON.parse(Buffer.concat(chunks).toString()) as Order
  await bill(String(request.headers['webhook-id']), { order, customer, number })
  tellMain({ tell: 'arrived', order, customer, number, atMs })
}

async function bill(messageId: string, { order, customer, number }: Order): Promise<void> {
  await inTransaction(trunkline.pool, async (client) =>
    trunkline.inbox.once(client, 'billing', messageId, () =>
      client.query('insert into billed (order_id, customer, number) values ($1, $2, $3)', [order, customer, number]),
    ),
  )
}

const server = createServer((request, response) => {
  receive(request).then(
    () => response.writeHead(204).end(),
    () => response.writeHead(500).end(),
  )
})
server.listen(Number(process.env['RECEIVER_PORT']), '127.0.0.1')
await once(server, 'listening')
endWithMain(async () => {
  server.close()
  server.closeAllConnections()
  await trunkline.pool.end()
})
tellMain({ tell: 'ready', port: (server.address() as AddressInfo).port })
