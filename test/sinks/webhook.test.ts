import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { Webhook } from 'standardwebhooks'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Delivery, DeliveryOutcome, Sink } from '../../src/relay/index.ts'
import { type InternalAddresses, sinkFromUrl, WebhookSink, type WebhookSinkOptions } from '../../src/sinks/index.ts'
import { isInternal } from '../../src/sinks/internal-addresses.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import { startTcpProxy } from '../support/index.ts'
import { runSinkContract } from './run-contract.ts'
import { WebhookReceiver } from './webhook-receiver.ts'

const secret = `whsec_${Buffer.from('the secret of the receiver, so').toString('base64')}`
const secrets = ['p4ssw0rd of user', 'p4ssw0rd%20of%20user', 'tok3n-in-query', 'tok3n-in-path', secret.slice(6)]
const { signal } = new AbortController()

async function openReceiver(): Promise<SinkReceiver> {
  const receiver = await WebhookReceiver.start()
  const network = await startTcpProxy(receiver.url)
  receiver.answer = ({ headers }, response) => {
    response.writeHead(headers['content-type'] === 'text/refused' ? 400 : 200).end('seen')
  }
  return {
    network,
    server: receiver,
    createSink: () =>
      sinkFromUrl(
        `http://user:p4ssw0rd%20of%20user@127.0.0.1:${network.port}/hooks/tok3n-in-path?token=tok3n-in-query`,
        { timeoutMs: 1_000, webhook: { secrets: [secret] } },
      ),
    received: async () =>
      receiver.requests.filter(({ headers }) => headers['content-type'] !== 'text/refused').map(({ body }) => body),
    refused: (delivery) => ({ ...delivery, contentType: 'text/refused' }),
    close: async () => {
      await network.stop()
      await receiver.stop()
    },
  }
}

describe('the webhook sink', () => {
  runSinkContract({
    open: openReceiver,
    has: { network: true, server: true, refused: true },
    deliverMsMax: 3_000,
    secrets,
  })

  test('signs as Standard Webhooks asks for, with each secret', async () => {
    const receiver = await WebhookReceiver.start()
    const next = `whsec_${Buffer.alloc(32, 'n').toString('base64')}`
    const sink = await started({ url: receiver.url, secrets: [secret, next] })
    const delivery = deliveryOf('k', 1)
    expect(await deliver(sink, delivery)).toBe(undefined)
    const [request] = receiver.requests
    const headers = request?.headers as Record<string, string>
    expect(headers['webhook-id']).toBe(delivery.messageId)
    expect(headers['content-type']).toBe('application/json')
    expect(headers['traceparent']).toBe(delivery.headers['traceparent'])
    for (const known of [secret, next]) {
      expect(new Webhook(known).verify(request?.body.toString() ?? '', headers)).toMatchObject({ number: 1 })
    }
    const stranger = new Webhook(Buffer.alloc(32, 'x').toString('base64'))
    expect(() => stranger.verify(request?.body.toString() ?? '', headers)).toThrow('No matching signature')
    expect(() => new Webhook(secret).verify('{"another":"body"}', headers)).toThrow('No matching signature')
  })

  test('sends basic authentication, its own headers, and no header of an event that HTTP or the signature uses', async () => {
    const receiver = await WebhookReceiver.start()
    const sink = await started({
      url: receiver.url.replace('//', '//user:s%3Acret@'),
      headers: { 'X-Tenant': 'seven' },
      secrets: [secret],
    })
    const headers = {
      host: 'evil',
      'Webhook-Signature': 'v1,forged',
      'transfer-encoding': 'chunked',
      'x-name': 'Zoë',
      'bad name': 'x',
    }
    expect(await deliver(sink, { ...deliveryOf('k', 1), headers })).toBe(undefined)
    const [request] = receiver.requests
    expect(request?.headers).toMatchObject({
      authorization: `Basic ${Buffer.from('user:s:cret').toString('base64')}`,
      host: `127.0.0.1:${receiver.port}`,
      'x-tenant': 'seven',
      'x-name': 'Zo%C3%AB',
    })
    expect(request?.headers['webhook-signature']).not.toContain('forged')
    expect(request?.headers).not.toHaveProperty('transfer-encoding')
  })

  const answers: readonly (readonly [number, Record<string, string>, string, boolean, number | undefined])[] = [
    [400, {}, 'receiver_refused', false, undefined],
    [401, { 'retry-after': '5' }, 'receiver_refused', false, undefined],
    [404, {}, 'receiver_refused', false, undefined],
    [408, {}, 'receiver_unavailable', true, undefined],
    [410, {}, 'receiver_gone', false, undefined],
    [413, {}, 'receiver_refused', false, undefined],
    [425, {}, 'receiver_unavailable', true, undefined],
    [429, { 'retry-after': '7' }, 'receiver_throttles', true, 7_000],
    [500, {}, 'receiver_unavailable', true, undefined],
    [503, { 'retry-after': 'Fri, 01 Jan 2038 00:00:00 GMT' }, 'receiver_unavailable', true, 86_400_000],
    [503, { 'retry-after': 'Fri, 01 Jan 1999 00:00:00 GMT' }, 'receiver_unavailable', true, 0],
    [503, { 'retry-after': 'soon' }, 'receiver_unavailable', true, undefined],
  ]
  test.each(answers)('an answer of %i %o is %s', async (status, headers, code, retryable, retryAfterMs) => {
    const receiver = await WebhookReceiver.start()
    receiver.answer = (_request, response) => void response.writeHead(status, headers).end('no such order\n')
    const sink = await started({ url: receiver.url })
    const outcome = await deliver(sink, deliveryOf('k', 1))
    expect(outcome).toMatchObject({ code, retryable, retryAfterMs, details: { status } })
    expect(outcome?.message).toContain(`answered ${status}: no such order.`)
  })

  test('follows no redirect', async () => {
    const [receiver, other] = [await WebhookReceiver.start(), await WebhookReceiver.start()]
    receiver.answer = (_request, response) => void response.writeHead(307, { location: other.url }).end()
    const sink = await started({ url: receiver.url })
    expect(await deliver(sink, deliveryOf('k', 1))).toMatchObject({ code: 'receiver_redirects', retryable: true })
    expect(other.requests).toEqual([])
  })

  test('a receiver that changes the protocol has answered', async () => {
    const server = createServer((socket) => {
      socket
        .on('error', () => undefined)
        .once('data', () => {
          socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n')
        })
    }).listen(0, '127.0.0.1')
    onTestFinished(() => void server.close())
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const sink = await started({ url: `http://127.0.0.1:${port}/`, timeoutMs: 5_000 })
    expect(await deliver(sink, deliveryOf('k', 1))).toMatchObject({
      code: 'receiver_redirects',
      details: { status: 101 },
    })
  })

  test('reads no endless answer, and waits for no body: the head says what it means', async () => {
    const receiver = await WebhookReceiver.start()
    const sink = await started({ url: receiver.url, timeoutMs: 10_000 })
    receiver.answer = (_request, response) => {
      response.writeHead(200)
      const timer = setInterval(() => response.write('x'.repeat(10_000)), 1)
      response.on('close', () => clearInterval(timer))
    }
    expect(await deliver(sink, deliveryOf('k', 1))).toBe(undefined)
    for (const [status, expected] of [[200, undefined] as const, [400, { code: 'receiver_refused' }] as const]) {
      receiver.answer = (_request, response) => void response.writeHead(status).write('x')
      const outcome = await deliver(sink, deliveryOf('k', 2))
      if (expected === undefined) expect(outcome).toBe(undefined)
      else expect(outcome).toMatchObject(expected)
    }
  })

  test('times out on a receiver that does not answer', async () => {
    const receiver = await WebhookReceiver.start()
    receiver.answer = () => {}
    const sink = await started({ url: receiver.url, timeoutMs: 300 })
    expect(await deliver(sink, deliveryOf('k', 1))).toMatchObject({ code: 'delivery_timed_out', retryable: true })
  })

  test.each([
    ['Bearer sk_live_0123456789', ''],
    ['', 'sk_live_user:@'],
    ['', 'me:sk_live_p4ss%21@'],
    [`Basic ${Buffer.from('me:sk_live_p4ss').toString('base64')}`, ''],
  ])('shows nothing of %s %s that the receiver repeats, wherever its text is cut', async (authorization, user) => {
    const receiver = await WebhookReceiver.start()
    const sink = await started({
      url: receiver.url.replace('//', `//${user}`),
      headers: authorization === '' ? {} : { authorization },
    })
    for (const before of [0, 185, 190, 195]) {
      receiver.answer = ({ headers }, response) => {
        const sent = headers['authorization']?.split(' ')[1] ?? ''
        const said = `${sent} ${Buffer.from(sent, 'base64').toString()}`
        response.writeHead(401).end(`${' '.repeat(3)}${'x'.repeat(before)} ${said} ${said} ${sent.repeat(500)}`)
      }
      const outcome = await deliver(sink, deliveryOf('k', 1))
      expect(outcome?.message).toContain('answered 401: ')
      expect(outcome?.message).not.toMatch(/sk_|live|c2tf|bWU6/)
    }
  })

  test('two stale connections in a row are a failed connection', async () => {
    const answered = new WeakSet<Socket>()
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.on('data', () => {
        if (answered.has(socket)) return void socket.resetAndDestroy()
        answered.add(socket)
        arrived.push(socket)
        // All at once: so there are several connections to keep.
        if (arrived.length === 3) for (const one of arrived) one.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
      })
    })
    const arrived: Socket[] = []
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const sink = await started({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` })
    onTestFinished(() => void server.close())
    const batch = ['a', 'b', 'c'].map((key) => deliveryOf(key, 1))
    expect(await sink.deliver(batch, signal)).toEqual([undefined, undefined, undefined])
    expect(await deliver(sink, deliveryOf('a', 2))).toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.stringContaining('could not be reached') as string,
    })
  })

  test('keeps its connection, and takes a new one when the receiver has closed it', async () => {
    const receiver = await WebhookReceiver.start()
    const sink = await started({ url: receiver.url })
    for (let number = 1; number <= 3; number += 1) expect(await deliver(sink, deliveryOf('k', number))).toBe(undefined)
    expect(receiver.connectionCount).toBe(1)
    await receiver.stop()
    await receiver.start()
    expect(await deliver(sink, deliveryOf('k', 4))).toBe(undefined)
    expect(receiver.connectionCount).toBe(2)
  })

  test('tells that a host is unknown', async () => {
    const sink = await started({ url: 'http://no-such-host.invalid/hook' })
    expect(await deliver(sink, deliveryOf('k', 1))).toMatchObject({ code: 'connection_failed', retryable: true })
  })
})

describe('the guard against internal addresses', () => {
  test('by default reaches what the URL itself says, and is switched off and on', async () => {
    const receiver = await WebhookReceiver.start()
    const attempt = async (host: string, internalAddresses?: InternalAddresses): Promise<DeliveryOutcome> => {
      const url = `http://${host}:${receiver.port}/`
      const sink = new WebhookSink({ url, internalAddresses })
      await sink.start()
      onTestFinished(() => sink.stop())
      return deliver(sink, deliveryOf('k', 1))
    }
    for (const host of ['127.0.0.1', 'localhost', '0x7f.1', '2130706433']) expect(await attempt(host)).toBe(undefined)
    expect(await attempt('localhost', ['127.0.0.0/8'])).toBe(undefined)
    expect(await attempt('127.0.0.1', ['127.0.0.1'])).toBe(undefined)
    expect(await attempt('localhost', true)).toBe(undefined)
    const delivered = receiver.requests.length
    expect(await attempt('localhost', false)).toMatchObject({ code: 'internal_address', retryable: true })
    expect(await attempt('localhost', ['10.0.0.0/8'])).toMatchObject({ code: 'internal_address' })
    for (const host of ['127.0.0.1', '0x7f.1', '[::ffff:127.0.0.1]', '[::1]', '169.254.169.254']) {
      await expect(attempt(host, false)).rejects.toMatchObject({ code: 'internal_address' })
    }
    expect(receiver.requests.length).toBe(delivered)
    for (const wrong of ['10.0.0.0/99', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0.0/ 8', '10.0.0.0/0x8']) {
      expect(() => new WebhookSink({ url: receiver.url, internalAddresses: [wrong] })).toThrow(wrong)
    }
  })

  test('a name that looks public is refused inside, and reached over the address that was checked', async () => {
    const receiver = await WebhookReceiver.start()
    const { AddressGuard } = await import('../../src/sinks/internal-addresses.ts')
    const lookUp = (host: string, allow: InternalAddresses): Promise<unknown> =>
      new Promise((resolve) => {
        new AddressGuard(host, allow).lookup('localhost', { all: true }, (error, found) => resolve(error ?? found))
      })
    // The resolver is the real one; what a public name would lead to is what `localhost` leads to.
    expect(await lookUp('hooks.example.com', 'as-written')).toMatchObject({ code: 'internal_address' })
    expect(await lookUp('hooks.example.com', ['127.0.0.1'])).toEqual([{ address: '127.0.0.1', family: 4 }])
    expect(receiver.requests).toEqual([])
  })

  test.each([
    ['8.8.8.8', false],
    ['2606:4700::1111', false],
    ['10.1.2.3', true],
    ['100.64.0.1', true],
    ['172.31.255.255', true],
    ['172.32.0.1', false],
    ['169.254.169.254', true],
    ['255.255.255.255', true],
    ['0.0.0.0', true],
    ['::', true],
    ['::1', true],
    ['::ffff:8.8.8.8', true],
    ['::ffff:10.0.0.1', true],
    ['64:ff9b::a00:1', true],
    ['2002:a00:1::', true],
    ['2001:db8::1', true],
    ['fd00::1', true],
    ['fe80::1', true],
    ['ff02::1', true],
  ])('%s internal: %s', (address, expected) => {
    expect(isInternal(address)).toBe(expected)
  })
})

describe('the options of the webhook sink', () => {
  test.each(['whsec_short', 'whsec_not base64!', `whsec_${Buffer.alloc(65).toString('base64')}`])(
    'refuses the secret %s without showing it',
    (wrong) => {
      const make = (): Sink => new WebhookSink({ url: 'https://example.com', secrets: [wrong] })
      expect(make).toThrow(expect.objectContaining({ code: 'invalid_secret' }))
      expect(make).not.toThrow(wrong.slice(6))
    },
  )

  test.each([
    [{ authorization: 'Bearer s3cret\nx' }, /authorization/],
    [{ 'x key': 's3cret' }, /x key/],
    [{ 'x-key': 's3cret\u2603' }, /x-key/],
  ])('refuses headers that HTTP cannot send, instead of failing each delivery: %o', (headers, message) => {
    const make = (): Sink => new WebhookSink({ url: 'https://example.com/', headers })
    expect(make).toThrow(
      expect.objectContaining({ code: 'invalid_option', message: expect.stringMatching(message) as string }),
    )
    expect(make).not.toThrow('s3cret')
  })

  test('refuses a URL of another kind', () => {
    const make = (): Sink => new WebhookSink({ url: 'ftp://example.com/tok3n' })
    expect(make).toThrow(expect.objectContaining({ code: 'invalid_sink_url' }))
    expect(make).not.toThrow('tok3n')
  })
})

async function started(options: WebhookSinkOptions): Promise<WebhookSink> {
  const sink = new WebhookSink(options)
  await sink.start()
  onTestFinished(() => sink.stop())
  return sink
}

async function deliver(sink: Sink, delivery: Delivery): Promise<DeliveryOutcome> {
  const outcomes = await sink.deliver([delivery], signal)
  expect(outcomes).toHaveLength(1)
  return outcomes[0]
}
