import { PassThrough, Writable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { StdoutSink } from '../../src/sinks/index.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import { runSinkContract } from './run-contract.ts'

const { signal } = new AbortController()

async function openStream(): Promise<SinkReceiver> {
  const stream = new PassThrough()
  let text = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  return {
    createSink: () => new StdoutSink({ stream, timeoutMs: 1_000 }),
    received: async () =>
      text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => Buffer.from(line)),
    close: async () => void stream.destroy(),
    refused: (delivery) => ({ ...delivery, body: Buffer.from('{\n}') }),
  }
}

describe('the stdout sink', () => {
  runSinkContract({ open: openStream, has: { refused: true }, deliverMsMax: 3_000 })

  test('a reader that does not read lets the time run out, and nothing is queued behind it', async () => {
    const taken: string[] = []
    let release: (() => void) | undefined
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        taken.push(chunk.toString())
        release = done
      },
    })
    const sink = new StdoutSink({ stream, timeoutMs: 500 })
    await sink.start()
    const [first, second] = [deliveryOf('k', 1), deliveryOf('k', 2)]
    for (const delivery of [first, second]) {
      const [outcome] = await sink.deliver([delivery], signal)
      expect(outcome).toMatchObject({ code: 'delivery_timed_out', retryable: true })
    }
    expect(taken).toEqual([`${first.body.toString()}\n`])
    release?.()
    const again = sink.deliver([second], signal)
    await expect.poll(() => taken.length).toBe(2)
    release?.()
    expect(await again).toEqual([undefined])
    await sink.stop()
  })

  test('a reader that has gone is an error of the delivery, not of the process', async () => {
    const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error('write EPIPE')) })
    const sink = new StdoutSink({ stream })
    await sink.start()
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const [outcome] = await sink.deliver([deliveryOf('k', 1)], signal)
      expect(outcome).toMatchObject({ code: 'output_closed', retryable: true })
    }
    await sink.stop()
  })
})
