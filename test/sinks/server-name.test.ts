import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import { serverNameOf } from '../../src/sinks/server-name.ts'

test.each(['kafkas', 'amqps', 'rediss', 'mqtts'])('%s: names the host when TLS begins', async (scheme) => {
  const names: string[] = []
  const server = createServer({
    SNICallback: (name, callback) => {
      names.push(name)
      callback(new Error('that is all this server does'))
    },
  })
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const sink = sinkFromUrl(`${scheme}://localhost:${(server.address() as AddressInfo).port}/place`)
  await expect(sink.start()).rejects.toMatchObject({ code: 'connection_failed', retryable: true })
  expect(new Set(names)).toEqual(new Set(['localhost']))
})

test('an address is no server name', () => {
  for (const address of ['127.0.0.1', '::1']) expect(serverNameOf(address)).toEqual({})
})
