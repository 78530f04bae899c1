import type { PoolClient } from 'pg'
import { sql } from 'slonik'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { RoutingSession, type Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { errorOf, type Fleet, portOf, route, type Routed, startFleet, untilServing } from './fleet.ts'

const insert = 'insert into item values ($1)'
/** Nobody looks, so that nothing but the bound itself ends what hangs. */
const quiet = { healthIntervalMs: 600_000 }

describeEachVersion('ends of transactions, when the server does not answer', (version) => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
  })
  afterAll(() => fleet[Symbol.asyncDispose]())
  beforeEach(async () => {
    await fleet.database.query('truncate item')
    await fleet.caughtUp()
  })
  afterEach(async () => {
    for (const proxy of [fleet.primaryProxy, ...fleet.proxies]) await proxy.resume()
  })

  const untilNothingIsOpen = async (trunkline: Trunkline): Promise<unknown> =>
    eventually(() => trunkline.routing.status().nodes.every(({ open }) => open === 0), { timeoutMs: 20_000 })
  const primaryPort = (): number => fleet.primary.postgres.port

  test('the COMMIT of a read: its connection is given up, and a session’s next read does not wait for it for ever', async () => {
    await using routed = await route(fleet, { routing: { ...quiet, poolSizeMax: 1 } })
    const { trunkline } = routed
    await trunkline.read(portOf)
    const stalling = async (): Promise<void> =>
      trunkline.read(
        async (tx) => {
          await tx.query('select 1')
          fleet.proxies[0]!.stall()
        },
        { timeoutMs: 2_000 },
      )
    await stalling()
    await untilNothingIsOpen(trunkline)
    await fleet.proxies[0]!.resume()
    await trunkline.routing.session(async (session) => {
      await stalling()
      await session.settled()
      await fleet.proxies[0]!.resume()
      expect(await trunkline.read(portOf, { timeoutMs: 5_000 })).toBe(fleet.standbys[0]!.postgres.port)
    })
  })

  test('a rollback: the function’s own error, in bounded time, though the call has no longest time', async () => {
    await using routed = await route(fleet, { routing: { ...quiet, timeoutMs: 0 } })
    const mine = new Error('mine')
    const write = routed.trunkline.write(async (tx) => {
      await tx.query(insert, [1])
      fleet.primaryProxy.stall()
      throw mine
    })
    expect(await errorOf(write)).toBe(mine)
    await untilNothingIsOpen(routed.trunkline)
  })

  test('a replica that stalls before it has shown the token: the fallback', async () => {
    await using routed = await route(fleet, { routing: { ...quiet, waitTimeoutMs: 100, timeoutMs: 0 } })
    const { trunkline } = routed
    await trunkline.read(portOf)
    const { token } = await trunkline.write(async (tx) => tx.query(insert, [1]), { withToken: true })
    fleet.proxies[0]!.stall()
    expect(await trunkline.read(portOf, { after: token })).toBe(primaryPort())
  })

  test('a primary that stalls before it has shown its timeline: an error, in bounded time', async () => {
    await using routed = await route(fleet, {
      replicaUrls: [],
      routing: { ...quiet, timeoutMs: 0, acquireTimeoutMs: 300 },
    })
    const { trunkline } = routed
    const { token } = await trunkline.write(async (tx) => tx.query(insert, [1]), { withToken: true })
    fleet.primaryProxy.stall()
    expect(await errorOf(trunkline.read(portOf, { after: token }))).toMatchObject({ code: 'connection_failed' })
    await untilNothingIsOpen(trunkline)
  })

  test(
    'a pool’s release in a session: given up, and the session pinned after a write',
    { timeout: 60_000 },
    async () => {
      await using routed = await route(fleet, { routing: quiet })
      const { trunkline } = routed
      const { write } = trunkline.routing.pools()
      await trunkline.routing.session(async (session) => {
        const client = await write.connect()
        await client.query(insert, [1])
        fleet.primaryProxy.stall()
        client.release()
        await session.settled()
        expect(session.isPinned).toBe(true)
      })
      await untilNothingIsOpen(trunkline)
    },
  )

  test('a pool’s statement on a primary that answers no look for timeoutMs fails', { timeout: 60_000 }, async () => {
    await using routed = await route(fleet, { routing: { timeoutMs: 1_000 } })
    const { write } = routed.trunkline.routing.pools()
    await write.query('select 1')
    fleet.primaryProxy.stall()
    const error = await errorOf(write.query('select 1'))
    expect(error.message).toMatch(/does not answer/)
  })

  test('a session waits for positions in bounded time, and reads from the primary then', async () => {
    const session = new RoutingSession()
    session.await(new Promise(() => undefined))
    await session.settled(20)
    expect(session.isPinned).toBe(true)
  })

  test('a COMMIT or ROLLBACK of the function’s own is told, and never taken for success', async () => {
    await using routed = await route(fleet)
    const { trunkline } = routed
    for (const [id, text] of ['commit', 'rollback'].entries()) {
      for (const intent of ['write', 'read'] as const) {
        const ended = trunkline[intent](async (tx) => {
          await tx.query('select 1')
          if (intent === 'write') await tx.query(insert, [id])
          await tx.query(text)
        })
        expect(await codeOf(ended)).toBe('transaction_ended')
      }
    }
    await untilNothingIsOpen(trunkline)
    expect(await fleet.database.query('select id from item')).toEqual([{ id: 0 }])
  })

  test('a connection lost before COMMIT: nothing was committed, and that is known', async () => {
    await using routed = await route(fleet)
    const write = routed.trunkline.write(async (tx) => {
      await tx.query(insert, [1])
      const { rows } = await tx.query<{ pid: number }>('select pg_backend_pid() as pid')
      await fleet.database.adminQuery(`select pg_terminate_backend(${rows[0]!.pid})`)
      await tx.query('select 1').catch(() => undefined)
    })
    expect(await codeOf(write)).toBe('transaction_aborted')
    expect(await fleet.database.query('select from item')).toEqual([])
  })

  test('a first statement that got no connection: its caught error commits nothing later', async () => {
    await using routed = await route(fleet, { replicaUrls: [], routing: { acquireTimeoutMs: 300 } })
    const { trunkline } = routed
    await fleet.primaryProxy.cut()
    const codes: (string | undefined)[] = []
    const write = trunkline.write(async (tx) => {
      codes.push((await errorOf(tx.query(insert, [1]))).code)
      await fleet.primaryProxy.resume()
      await eventually(() => trunkline.routing.status().primary !== undefined)
      codes.push((await errorOf(tx.query(insert, [2]))).code)
    })
    expect(await codeOf(write)).toBe('transaction_aborted')
    expect(codes[0]).toMatch(/^(no_primary|connection_failed)$/)
    expect(codes[1]).toBe('transaction_aborted')
    expect(await fleet.database.query('select from item')).toEqual([])
  })
})

describeEachVersion('a connection belongs to the session that took it', (version) => {
  let fleet: Fleet
  let routed: Routed
  let trunkline: Trunkline

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    routed = await route(fleet)
    trunkline = routed.trunkline
    await untilServing(trunkline, 1)
  })
  afterAll(async () => {
    await routed.trunkline.stop()
    await fleet[Symbol.asyncDispose]()
  })

  const lastRead = (): unknown => routed.decisions.findLast(({ intent }) => intent === 'read')

  test('wherever it is given back; and a failed write over it makes that session read from the primary', async () => {
    const { write } = trunkline.routing.pools()
    const session = new RoutingSession()
    const take = async (): Promise<PoolClient> => trunkline.routing.runIn(session, async () => write.connect())
    const client = await take()
    await client.query('insert into item values (1)')
    // Outside of any session, and then inside of another one.
    client.release()
    await session.settled()
    expect(session.token).toBeDefined()

    const broken = await take()
    await broken.query('insert into item values (2)')
    await trunkline.routing.session(async (other) => {
      broken.release(new Error('it was cut, say'))
      await other.settled()
      expect([other.token, other.isPinned]).toEqual([undefined, false])
    })
    expect(session.isPinned).toBe(true)
    await trunkline.routing.runIn(session, async () => trunkline.read(portOf))
    expect(lastRead()).toMatchObject({ target: 'primary', reason: 'pinned' })
    await trunkline.routing.runIn(session, async () => write.query('insert into item values (3)'))
    await session.settled()
    expect(session.isPinned).toBe(false)
  })

  test('slonik: a failed write pins the session until the next one', async () => {
    await using db = await trunkline.routing.slonik()
    const port = sql.unsafe`select inet_server_port()`
    await trunkline.routing.session(async (session) => {
      await expect(
        db.write(async (tx) => {
          await tx.query(sql.unsafe`insert into item values (10)`)
          throw new Error('mine')
        }),
      ).rejects.toThrow('mine')
      expect(session.isPinned).toBe(true)
      expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(fleet.primary.postgres.port)
      await db.write(async (tx) => tx.query(sql.unsafe`insert into item values (11)`))
      expect([session.isPinned, session.token === undefined]).toEqual([false, false])
    })
  })
})
