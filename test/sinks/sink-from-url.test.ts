import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import { scratchDirectory } from './scratch.ts'

describe('sinkFromUrl', () => {
  test.each([
    ['file:events.ndjson', 'file:events.ndjson', 'lines'],
    ['file:/var/lib/a%20b.ndjson', 'file:/var/lib/a%20b.ndjson', 'lines'],
    ['file:///var/lib/a%20b.ndjson', 'file:/var/lib/a b.ndjson', 'lines'],
    ['stdout:', 'stdout:', 'lines'],
    ['https://user:s3cret@example.com/hook/s3cret?t=s3cret', 'https://example.com/…', 'http'],
    ['kafka://u:s3cret@a:9092,b,[::1]:9094/orders?x=s3cret', 'kafka://a:9092,b,[::1]:9094/orders', 'kafka'],
    ['amqps://u:s3cret@broker/ex%20change?vhost=a', 'amqps://broker/ex%20change', 'amqp'],
    ['nats+tls://s3cret@broker:4222/orders.*', 'nats+tls://broker:4222/orders.*', 'nats'],
    ['redis://:s3cret@cache:6379/', 'redis://cache:6379/', 'redis'],
    ['mqtt://u:s3cret@broker/a/b', 'mqtt://broker/a/b', 'mqtt'],
    ['HTTP://example.com', 'http://example.com/', 'http'],
  ])('%s is called %s', (url, name, transport) => {
    expect(sinkFromUrl(url)).toMatchObject({ name, transport })
  })

  test.each(['fax://user:s3cret@host/', 'constructor:s3cret', 's3cret', '', '//user:s3cret@host'])(
    'refuses %s by its scheme alone',
    (url) => {
      const make = (): unknown => sinkFromUrl(url)
      expect(make).toThrow(expect.objectContaining({ code: 'unknown_sink_scheme' }))
      expect(make).toThrow(/Known are file:, stdout:, http:.*kafka:.*mqtts:/)
      expect(make).not.toThrow('s3cret')
    },
  )

  test.each([
    'kafka:',
    'kafka:///t',
    'amqp://u:s3cret@',
    'mqtt://u:s3cret%@b:99999/t',
    'redis://h/%E0%A4%A',
    // Passwords with an @ or a / as it is, and one in each server.
    'amqp://user:p@s3cret@host/ex',
    'nats://u:s1@h1:4222,u:s3cret@h2:4222/s',
    'nats://u:s1@h1:4222,nats://u:s3cret@h2:4222/s',
    'kafka://user:12/s3cret@host/topic',
    'redis://:p@ss/s3cret@host/x',
  ])('refuses %s, which names no broker', (url) => {
    const make = (): unknown => sinkFromUrl(url)
    expect(make).toThrow(expect.objectContaining({ code: 'invalid_sink_url' }))
    expect(make).not.toThrow('s3cret')
  })

  test.each(['file:', 'file://other-host/path'])('refuses %s, which names no local file', (url) => {
    expect(() => sinkFromUrl(url)).toThrow(expect.objectContaining({ code: 'invalid_sink_url' }))
  })

  test.each([0, -1, Number.NaN, 1.5, 2 ** 40])(
    'refuses a time limit of %d ms, at which timers fire at once',
    (timeoutMs) => {
      for (const url of [
        'file:x',
        'stdout:',
        'https://h/',
        'kafka://h',
        'amqp://h',
        'nats://h',
        'redis://h',
        'mqtt://h',
      ]) {
        expect(() => sinkFromUrl(url, { timeoutMs })).toThrow(expect.objectContaining({ code: 'invalid_option' }))
      }
      expect(() => sinkFromUrl('redis://host/x', { redis: { lengthMax: timeoutMs } })).toThrow(/lengthMax/)
    },
  )

  test('a file URL leads to its file', async () => {
    const path = join(await scratchDirectory(), 'a b#c?d.ndjson')
    expect(sinkFromUrl(pathToFileURL(path).href).name).toBe(`file:${path}`)
  })
})
