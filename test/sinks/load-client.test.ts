import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const hook = new URL('without-clients.ts', import.meta.url).href
const sinks = fileURLToPath(new URL('../../src/sinks/index.ts', import.meta.url))

describe('a client that is not installed', () => {
  test.each([
    ['kafka://u:s3cret@h/t', '@platformatic/kafka'],
    ['amqp://u:s3cret@h/t', 'rabbitmq-client'],
    ['nats://u:s3cret@h/t', '@nats-io/transport-node'],
    ['redis://u:s3cret@h/t', '@redis/client'],
    ['mqtt://u:s3cret@h/t', 'mqtt'],
  ])('of %s is named, with what to do', async (url, packageName) => {
    const program = `
      const { sinkFromUrl } = await import(${JSON.stringify(sinks)})
      const sink = sinkFromUrl(${JSON.stringify(url)}, { timeoutMs: 2000 })
      await sink.start().then(
        () => console.log('started'),
        ({ code, retryable, message }) => console.log(JSON.stringify({ code, retryable, message })),
      )`
    const run = promisify(execFile)(process.execPath, ['--import', hook, '--input-type=module', '--eval', program])
    const { stdout } = await run
    expect(JSON.parse(stdout)).toEqual({
      code: 'client_missing',
      retryable: false,
      message: expect.stringContaining(`npm install ${packageName}@`) as string,
    })
  })
})
