import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve, type ServerType } from '@hono/node-server'
import Fastify from 'fastify'
import { Hono } from 'hono'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Carrier, Trunkline } from '../../src/index.ts'
import { signToken, verifyToken } from '../../src/routing/token.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion } from '../support/index.ts'
import { type Fleet, route, type Routed, startFleet, untilServing } from './fleet.ts'

const secret = 'a secret of the test, long enough'

interface Running {
  readonly port: number
  readonly close: () => Promise<void>
}

/** A service that writes on POST (by a pool or a transaction) and counts on GET, in each framework. */
const frameworks: Readonly<Record<string, (trunkline: Trunkline, carrier: Carrier) => Promise<Running>>> = {
  async 'node:http'(trunkline, carrier) {
    const server = createServer(
      carrier.node((request, response) => {
        void handle(trunkline, request.method ?? '').then((text) => {
          response.writeHead(200, { 'content-type': 'text/plain', 'set-cookie': 'theirs=1' })
          response.end(text)
        })
      }),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return { port: (server.address() as AddressInfo).port, close: async () => void server.close() }
  },
  async Fastify(trunkline, carrier) {
    const app = Fastify()
    await app.register(carrier.fastify)
    app.all('/', async (request, reply) => {
      void reply.header('set-cookie', 'theirs=1')
      return handle(trunkline, request.method)
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return { port: (app.server.address() as AddressInfo).port, close: async () => app.close() }
  },
  async Hono(trunkline, carrier) {
    const app = new Hono()
    app.use(carrier.hono)
    app.all('/', async (context) => {
      context.header('set-cookie', 'theirs=1', { append: true })
      return context.text(await handle(trunkline, context.req.method))
    })
    const server: ServerType = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
    await once(server, 'listening')
    return { port: (server.address() as AddressInfo).port, close: async () => void server.close() }
  },
}

async function handle(trunkline: Trunkline, method: string): Promise<string> {
  if (method === 'POST') {
    await trunkline.write(async (tx) => tx.query('insert into item values ((select count(*) from item))'))
    return 'written'
  }
  return trunkline.read(async (tx) => {
    const { rows } = await tx.query<{ n: number }>('select count(*)::integer as n from item')
    return String(rows[0]?.n)
  })
}

describeEachVersion('tokens between requests', (version) => {
  let fleet: Fleet
  let routed: Routed

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    routed = await route(fleet, { routing: { waitTimeoutMs: 50 } })
    await untilServing(routed.trunkline, 1)
  })
  afterAll(async () => {
    await routed.trunkline.stop()
    await fleet[Symbol.asyncDispose]()
  })

  test.each(Object.keys(frameworks))('%s: by cookie and by header, each client its own', async (name) => {
    for (const by of ['cookie', 'header'] as const) {
      await fleet.database.query('truncate item')
      await fleet.caughtUp()
      await fleet.standbys[0]!.pauseReplay()
      const { trunkline } = routed
      const running = await frameworks[name]!(trunkline, trunkline.routing.carrier({ secret, by, isSecure: false }))
      try {
        const url = `http://127.0.0.1:${running.port}/`
        const written = await fetch(url, { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } })
        expect(await written.text()).toBe('written')
        const cookies = written.headers.getSetCookie()
        expect(cookies).toContain('theirs=1')
        const cookie = cookies.find((each) => each.startsWith('trunkline-token=')) ?? ''
        const header = written.headers.get('trunkline-token') ?? ''
        expect([cookie !== '', header !== '']).toEqual([by === 'cookie', by === 'header'])
        if (by === 'cookie') expect(cookie).toMatch(/; Path=\/; Max-Age=86400; HttpOnly; SameSite=Lax$/)
        const carried =
          by === 'cookie' ? { cookie: `a=b; ${cookie.split(';')[0]!}; c=d` } : { 'trunkline-token': header }
        // Who carries it sees the write, everybody else what the replica has.
        expect(await (await fetch(url, { headers: carried })).text()).toBe('1')
        expect(await (await fetch(url)).text()).toBe('0')
        const forged = Object.fromEntries(
          Object.entries(carried).map(([key, value]) => [key, value.replace(/:1:/, ':2:')]),
        )
        expect(await (await fetch(url, { headers: forged })).text()).toBe('0')
      } finally {
        await running.close()
        await fleet.standbys[0]!.resumeReplay()
      }
    }
  })

  test('a session of any other framework', async () => {
    const carrier = routed.trunkline.routing.carrier({ secret: [secret, 'the secret before this one'], by: 'both' })
    const session = carrier.begin({})
    await routed.trunkline.routing.runIn(session, async () =>
      routed.trunkline.write(async (tx) => tx.query("insert into item values (1000, 'x')")),
    )
    const headers = carrier.headersOf(session)
    expect(headers.map(([key]) => key)).toEqual(['set-cookie', 'trunkline-token'])
    expect(headers[0]![1]).toContain('; Secure')
    const next = carrier.begin({ [headers[1]![0]]: headers[1]![1] })
    expect(next.token).toBe(session.token)
    // Nothing new: nothing is sent.
    expect(carrier.headersOf(next)).toEqual([])
    expect(await codeOf(() => routed.trunkline.routing.carrier({ secret: 'short' }))).toBe('invalid_option')
  })

  test('node:http: headers given to writeHead as a list keep the cookie, and stay', async () => {
    const { trunkline } = routed
    const carrier = trunkline.routing.carrier({ secret, isSecure: false })
    const lists: unknown[] = [
      ['set-cookie', 'theirs=1', 'Set-Cookie', 'more=2', 'x-a', 'b'],
      [
        ['set-cookie', ['theirs=1', 'more=2']],
        ['x-a', 'b'],
      ],
    ]
    for (const list of lists) {
      const server = createServer(
        carrier.node((_request, response) => {
          void handle(trunkline, 'POST').then((text) => response.writeHead(200, 'fine', list as never).end(text))
        }),
      )
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, { method: 'POST' })
      expect(answer.headers.getSetCookie().map((each) => each.split('=')[0])).toEqual([
        'theirs',
        'more',
        'trunkline-token',
      ])
      expect([answer.statusText, answer.headers.get('x-a')]).toEqual(['fine', 'b'])
      server.closeAllConnections()
      server.close()
    }
  })

  test('wrong options of a carrier are refused', async () => {
    const wrong: object[] = [{ secret: undefined }, { secret: [] }, { by: 'cookies' }, { name: 'a b' }, { name: '' }]
    for (const options of [...wrong, { maxAgeS: Number.NaN }, { maxAgeS: 0 }].map((each) =>
      Object.assign({ secret }, each),
    )) {
      expect(await codeOf(() => routed.trunkline.routing.carrier(options as never))).toBe('invalid_option')
    }
  })

  test('signed tokens: genuine, not too old, not from the future', () => {
    const token = '7710782250208256586:1:0/1644980'
    const now = Math.floor(Date.now() / 1_000)
    const signed = signToken(token, secret)
    expect(signed).toMatch(/^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/)
    expect(verifyToken(signed, [secret], 60)).toBe(token)
    expect(verifyToken(signed, ['another secret, long enough', secret], 60)).toBe(token)
    expect(verifyToken(signed, ['another secret, long enough'], 60)).toBeUndefined()
    expect(verifyToken(signToken(token, secret, now - 61), [secret], 60)).toBeUndefined()
    expect(verifyToken(signToken(token, secret, now + 120), [secret], 60)).toBeUndefined()
    for (const forged of ['', '~', '~~', signed.slice(0, -1), `${signed}A`, signed.replace('0/', '1/'), token]) {
      expect(verifyToken(forged, [secret], 60)).toBeUndefined()
    }
  })
})
