import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { Node } from '../../src/routing/node.ts'
import { recordingLogger } from '../cache/cached.ts'

/** A message of the server's: its letter, its length, its text. */
function message(letter: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.write(letter)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

test('a server that ends with the packet that welcomes: the work fails, and not the process', async () => {
  const welcome = Buffer.concat([
    message('R', Buffer.alloc(4)),
    message('Z', Buffer.from('I')),
    message('E', Buffer.from('SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0')),
  ])
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.end(welcome))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const node = new Node({
    name: 'dying',
    weight: 1,
    config: { host: '127.0.0.1', port, user: 'me', ssl: false },
    isFirst: true,
    poolSizeMax: 2,
    acquireTimeoutMs: 5_000,
    healthIntervalMs: 60_000,
    timeoutMs: 5_000,
    logger: recordingLogger(),
    onLook: () => undefined,
  })
  node.start()
  try {
    const client = await node.connect()
    await expect(client.query('select 1')).rejects.toThrow(/terminat|not queryable/)
    node.release(client)
  } finally {
    await node.stop(0)
    server.close()
  }
})
