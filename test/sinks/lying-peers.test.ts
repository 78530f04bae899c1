import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import { eventually } from '../support/index.ts'

/** What a peer does that is no broker, or one that hangs. */
const peers: Readonly<Record<string, (socket: Socket) => void>> = {
  'says nothing': () => undefined,
  'closes at once': (socket) => socket.destroy(),
  'is an HTTP server': (socket) => void socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'),
  'sends zeros': (socket) => {
    const timer = setInterval(() => socket.write('\0'), 10)
    socket.once('close', () => clearInterval(timer))
  },
}

async function startPeer(behave: (socket: Socket) => void): Promise<{ port: number; open: Set<Socket> }> {
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    socket.on('error', () => undefined).once('close', () => open.delete(socket))
    socket.resume()
    behave(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of open) socket.destroy()
  })
  return { port: (server.address() as AddressInfo).port, open }
}

describe.each(['kafka', 'amqp', 'nats', 'redis', 'mqtt', 'kafkas', 'amqps', 'nats+tls', 'rediss', 'mqtts'])(
  '%s:',
  (scheme) => {
    test.each(Object.keys(peers))(
      'a peer that %s is an error of the start, and no connection is left',
      async (kind) => {
        const { port, open } = await startPeer(peers[kind]!)
        const sink = sinkFromUrl(`${scheme}://user:s3cret@127.0.0.1:${port}/t`, { timeoutMs: 500 })
        await expect(sink.start()).rejects.toMatchObject({
          code: expect.stringMatching(/^(connection_failed|delivery_timed_out)$/) as string,
          message: expect.not.stringContaining('s3cret') as string,
        })
        await sink.stop()
        await eventually(() => open.size === 0, { what: 'all is closed' })
      },
    )

    test('a start that waits for a peer ends soon when the sink is stopped', async () => {
      const { port, open } = await startPeer(peers['says nothing']!)
      const sink = sinkFromUrl(`${scheme}://127.0.0.1:${port}/t`, { timeoutMs: 20_000 })
      const starting = expect(sink.start()).rejects.toMatchObject({ code: 'relay_stopping' })
      await eventually(() => open.size > 0, { what: 'it is connected' })
      const before = performance.now()
      await sink.stop()
      expect(performance.now() - before).toBeLessThan(5_000)
      await starting
    })
  },
)
