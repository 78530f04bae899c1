import { once } from 'node:events'
import { type Server, type Socket, connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type TcpProxy, eventually, startTcpProxy } from './index.ts'

describe('a TCP proxy', () => {
  let echo: Server
  let proxy: TcpProxy

  beforeAll(async () => {
    echo = createServer((socket) => socket.on('error', () => {}).pipe(socket))
    echo.listen(0, '127.0.0.1')
    await once(echo, 'listening')
    const address = echo.address()
    proxy = await startTcpProxy(`postgres://user@127.0.0.1:${typeof address === 'object' ? address?.port : 0}/db`)
  })
  beforeEach(() => proxy.resume())
  afterAll(async () => {
    await proxy.stop()
    echo.close()
  })

  const open = async (): Promise<{ socket: Socket; received: () => string; error: () => string | undefined }> => {
    const socket = connect(proxy.port, '127.0.0.1')
    let received = ''
    let code: string | undefined
    socket.on('data', (chunk) => (received += chunk.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) => (code = error.code))
    await once(socket, 'connect')
    return { socket, received: () => received, error: () => code }
  }

  test('forwards both ways and ends when the client ends', async () => {
    const { socket, received } = await open()
    socket.write('a')
    await eventually(() => received() === 'a')
    expect(proxy.url).toBe(`postgres://user@127.0.0.1:${proxy.port}/db`)
    expect(proxy.connectionCount).toBe(1)
    socket.end()
    await eventually(() => proxy.connectionCount === 0)
  })

  test('cut resets what is open and refuses what is new, until resume', async () => {
    const { socket, error } = await open()
    await proxy.cut()
    await eventually(() => error() === 'ECONNRESET')
    expect(socket.destroyed).toBe(true)
    await expect(open()).rejects.toThrow(/ECONNREFUSED/)
    await proxy.resume()
    const again = await open()
    again.socket.write('b')
    await eventually(() => again.received() === 'b')
    again.socket.destroy()
  })

  test('stall holds back bytes of old and new connections, until resume', async () => {
    const old = await open()
    old.socket.write('1')
    await eventually(() => old.received() === '1')
    proxy.stall()
    const fresh = await open()
    old.socket.write('2')
    fresh.socket.write('3')
    // Nothing signals that nothing happens: this is ample time for an echo on the loopback interface.
    await delay(100)
    expect([old.received(), fresh.received()]).toEqual(['1', ''])
    expect([old.socket.destroyed, fresh.socket.destroyed]).toEqual([false, false])
    await proxy.resume()
    await eventually(() => old.received() === '12' && fresh.received() === '3')
    old.socket.destroy()
    fresh.socket.destroy()
    await eventually(() => proxy.connectionCount === 0)
  })
})
