import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { guardPool, inTransaction, queryPool } from '../../src/postgres/index.ts'

/** A message of PostgreSQL's protocol: its kind, its length, what it says. */
function message(kind: string, ...parts: readonly (string | Buffer)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)))
  const length = Buffer.alloc(4)
  length.writeInt32BE(body.length + 4)
  return Buffer.concat([Buffer.from(kind), length, body])
}

/** What a server says to whom it ends at once: accepted, ready, terminated, in one piece. */
const readyAndTerminated = Buffer.concat([
  message('R', Buffer.alloc(4)),
  message('Z', 'I'),
  message('E', 'SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0'),
])

test('a connection that breaks in the moment in which its pool hands it over is an error, and the process lives', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.end(readyAndTerminated))
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const pool = new pg.Pool({ host: '127.0.0.1', port, user: 'nobody', database: 'nothing' })
  pool.on('error', () => undefined)
  onTestFinished(() => pool.end())
  guardPool(pool)
  await expect(queryPool(pool, { text: 'select 1' })).rejects.toThrow()
  await expect(inTransaction(pool, async () => 1)).rejects.toThrow()
})
