import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { WebhookSink } from '../../src/index.ts'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import { eventually } from '../support/index.ts'

const example = fileURLToPath(new URL('../../examples/webhook-receiver.ts', import.meta.url))
const secretOf = (letter: string): string => `whsec_${Buffer.alloc(32, letter).toString('base64')}`
const { signal } = new AbortController()

describe('examples/webhook-receiver.ts', () => {
  test('takes what is signed with either secret, each once, and ends on SIGTERM', async () => {
    const port = await freePort()
    const [app, output] = await start(port, `${secretOf('a')},${secretOf('b')}`)
    const sinkWith = async (...secrets: string[]): Promise<WebhookSink> => {
      const sink = new WebhookSink({ url: `http://127.0.0.1:${port}/`, secrets })
      await sink.start()
      onTestFinished(() => sink.stop())
      return sink
    }
    const delivery = deliveryOf('k', 1)
    const rotating = await sinkWith(secretOf('x'), secretOf('b'))
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await rotating.deliver([delivery], signal)).toEqual([undefined])
    }
    expect(await (await sinkWith(secretOf('a'))).deliver([deliveryOf('k', 2)], signal)).toEqual([undefined])
    for (const stranger of [await sinkWith(secretOf('x')), await sinkWith()]) {
      expect(await stranger.deliver([deliveryOf('k', 3)], signal)).toMatchObject([{ details: { status: 401 } }])
    }
    await eventually(() => output().includes('"number":2'))
    expect(output().match(/"number":1/g)).toHaveLength(1)
    expect(output()).not.toContain('"number":3')
    const ended = once(app, 'exit')
    app.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
  })

  test('refuses to run without a secret', async () => {
    const app = spawn(process.execPath, [example], { env: { ...process.env, WEBHOOK_SECRETS: '' }, stdio: 'ignore' })
    expect(await once(app, 'exit')).toEqual([1, null])
  })
})

async function start(port: number, secrets: string): Promise<[ChildProcess, () => string]> {
  const app = spawn(process.execPath, [example], {
    env: { ...process.env, PORT: String(port), WEBHOOK_SECRETS: secrets },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void app.kill('SIGKILL'))
  let output = ''
  app.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  await eventually(() => output.includes('listening'), { timeoutMs: 20_000, what: 'the example is up' })
  return [app, () => output]
}
