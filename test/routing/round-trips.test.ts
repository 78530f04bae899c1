import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { describeEachVersion, startTcpProxy, type TcpProxy } from '../support/index.ts'
import { type Fleet, route, type Routed, startFleet } from './fleet.ts'

/** Looks at the servers are round trips, too: none happens while these are counted. */
const quiet = { healthIntervalMs: 600_000 }

describeEachVersion('round trips, counted on the wire', (version) => {
  let fleet: Fleet
  let routed: Routed
  let bare: pg.Pool
  let bareProxy: TcpProxy

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    bareProxy = await startTcpProxy(fleet.directUrls[0]!)
    bare = new pg.Pool({ connectionString: bareProxy.url, max: 1 })
    routed = await route(fleet, { routing: { ...quiet, poolSizeMax: 1 } })
    // Connections are open before anything is counted.
    await bare.query('select 1')
    await routed.trunkline.read(async (tx) => tx.query('select 1'))
    await routed.trunkline.write(async (tx) => tx.query('select 1'))
  })
  afterAll(async () => {
    await bare.end()
    await routed.trunkline.stop()
    await bareProxy.stop()
    await fleet[Symbol.asyncDispose]()
  })

  /** Round trips of a call; with one connection the next call cannot begin before this one has ended on the wire. */
  async function count(proxy: TcpProxy, call: () => Promise<unknown>, settle: () => Promise<unknown>): Promise<number> {
    await settle()
    const before = proxy.roundTrips
    await call()
    await settle()
    return proxy.roundTrips - before
  }

  const readOnce = async (values?: unknown[]): Promise<unknown> =>
    routed.trunkline.read(async (tx) => tx.query(values === undefined ? 'select 1' : 'select $1::integer', values))
  const inOneTurn = async (): Promise<void> => {
    const client = await routed.trunkline.routing.pools().read.connect()
    client.release()
  }

  test('a read is two, a bare one three; without and with values, which travel with BEGIN', async () => {
    const client = await bare.connect()
    const bareTrips = await count(
      bareProxy,
      async () => {
        await client.query('begin read only')
        await client.query('select $1::integer', [1])
        await client.query('commit')
      },
      async () => undefined,
    )
    client.release()
    expect(bareTrips).toBe(3)
    const [proxy] = fleet.proxies
    expect(await count(proxy!, async () => readOnce(), inOneTurn)).toBe(2)
    expect(await count(proxy!, async () => readOnce([1]), inOneTurn)).toBe(2)
    const withOptions = async (): Promise<unknown> =>
      routed.trunkline.read(async (tx) => tx.query('select $1::integer', [1]), {
        isolation: 'repeatable read',
        statementTimeoutMs: 1_000,
        label: 'counted',
      })
    expect(await count(proxy!, withOptions, inOneTurn)).toBe(2)
  })

  test('of those two a read waits for one: its COMMIT is nobody’s concern', async () => {
    const [proxy] = fleet.proxies
    await inOneTurn()
    const before = proxy!.roundTrips
    const result = await routed.trunkline.read(async (tx) => {
      const { rows } = await tx.query('select 1 as one')
      proxy!.stall()
      return rows
    })
    expect(result).toEqual([{ one: 1 }])
    expect(proxy!.roundTrips - before).toBe(1)
    await proxy!.resume()
    await inOneTurn()
    expect(proxy!.roundTrips - before).toBe(2)
  })

  test('a write is two, also with its token; nothing sent is none', async () => {
    const write = async (withToken: boolean): Promise<unknown> =>
      routed.trunkline.write(async (tx) => tx.query('insert into item values ((select count(*) from item))'), {
        withToken: withToken as true,
      })
    const settle = async (): Promise<unknown> => undefined
    expect(await count(fleet.primaryProxy, async () => write(false), settle)).toBe(2)
    expect(await count(fleet.primaryProxy, async () => write(true), settle)).toBe(2)
    expect(await count(fleet.primaryProxy, async () => routed.trunkline.write(async () => undefined), settle)).toBe(0)
  })

  test('a token is asked for once on a connection: one more round trip the first time, none later', async () => {
    const { token } = await routed.trunkline.write(async (tx) => tx.query("insert into item values (99, 'x')"), {
      withToken: true,
    })
    await fleet.caughtUp()
    const read = async (): Promise<unknown> =>
      routed.trunkline.read(async (tx) => tx.query('select from item'), { after: token })
    const [proxy] = fleet.proxies
    expect(await count(proxy!, read, inOneTurn)).toBe(3)
    expect(await count(proxy!, read, inOneTurn)).toBe(2)
    const last = routed.decisions.filter(({ reason }) => reason === 'token')
    expect(last).toHaveLength(2)
  })
})
