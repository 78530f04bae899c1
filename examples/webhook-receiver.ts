/**
 * Receives webhooks, checks that they are genuine, and handles each once. Run it:
 *
 *     WEBHOOK_SECRETS=whsec_… PORT=8080 node examples/webhook-receiver.ts
 *
 * and let a relay deliver to http://localhost:8080/ with the same secret. It needs nothing of trunkline: what is signed, and
 * how, is Standard Webhooks, for which there are libraries in most languages.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, createServer } from 'node:http'

/** While a secret is being replaced there are two, and either one will do. */
const keys = (process.env['WEBHOOK_SECRETS'] ?? '')
  .split(',')
  .map((secret) => Buffer.from(secret.trim().replace(/^whsec_/, ''), 'base64'))
/** Older requests may be a recording that somebody sends again. */
const ageMaxSeconds = 300
const bodyBytesMax = 1_000_000

/** In a service this is a table, and its row is written in the transaction of the work: see `inbox.once`. */
const handled = new Set<string>()

function isGenuine(headers: IncomingMessage['headers'], body: Buffer): boolean {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures } = headers
  if (typeof id !== 'string' || typeof timestamp !== 'string' || typeof signatures !== 'string') return false
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= ageMaxSeconds)) return false
  const given = signatures.split(' ').map((signature) => Buffer.from(signature.replace(/^v1,/, ''), 'base64'))
  return keys.some((key) => {
    const expected = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest()
    return given.some((one) => one.length === expected.length && timingSafeEqual(one, expected))
  })
}

async function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length
    if (bytes > bodyBytesMax) return undefined
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks)
}

/** The status says what the relay does next: 2xx next one, 4xx dead letter, 5xx again later. */
async function receive(request: IncomingMessage): Promise<number> {
  if (request.method !== 'POST') return 405
  const body = await readBody(request)
  if (body === undefined) return 413
  if (!isGenuine(request.headers, body)) return 401
  const id = String(request.headers['webhook-id'])
  // A repetition is answered as the first was, or the relay would go on.
  if (handled.has(id)) return 204
  console.log(request.headers['trunkline-topic'], request.headers['trunkline-key'], body.toString())
  handled.add(id)
  return 204
}

if (keys.some((key) => key.length < 24))
  throw new Error('Set WEBHOOK_SECRETS to whsec_ and 24 bytes or more in base64.')
const server = createServer((request, response) => {
  receive(request).then(
    (status) => response.writeHead(status).end(),
    () => response.writeHead(500).end(),
  )
})
server.listen(Number(process.env['PORT'] ?? 8080))
await once(server, 'listening')
console.log('listening')
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    server.close()
    server.closeIdleConnections()
  })
}
