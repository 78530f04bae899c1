import { sql } from 'slonik'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { type Fleet, route, type Routed, startFleet, untilServing } from './fleet.ts'

const port = sql.unsafe`select inet_server_port() as port`
const insert = (id: number): ReturnType<typeof sql.unsafe> => sql.unsafe`insert into item values (${id})`
const count = (id: number): ReturnType<typeof sql.unsafe> =>
  sql.unsafe`select count(*)::integer from item where id = ${id}`

describeEachVersion('transactions over slonik', (version) => {
  let fleet: Fleet
  let routed: Routed
  let trunkline: Trunkline

  beforeAll(async () => {
    fleet = await startFleet(version, 2)
    routed = await route(fleet)
    trunkline = routed.trunkline
    await untilServing(trunkline, 2)
  })
  afterAll(async () => {
    await routed.trunkline.stop()
    await fleet[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    await fleet.database.query('truncate item')
    await fleet.caughtUp()
    routed.decisions.length = 0
  })

  const ids = async (): Promise<unknown[]> =>
    (await fleet.database.query<{ id: number }>('select id from item order by id')).map(({ id }) => id)
  const portOfStandby = (place: number): number => fleet.standbys[place]!.postgres.port

  test('nested as elsewhere: a read in a write joins it, a write in a read throws, requiresNew is its own', async () => {
    await using db = await trunkline.routing.slonik()
    const seen = await db.write(async (tx) => {
      await tx.query(insert(1))
      const inside = await db.read(async (inner) => inner.oneFirst(count(1)))
      await db.write(async (inner) => inner.query(insert(2)))
      const apart = await db.read(async (inner) => inner.oneFirst(count(1)), { requiresNew: true })
      await db.write(async (inner) => inner.query(insert(3)), { requiresNew: true })
      return { inside, apart, after: await ids() }
    })
    expect(seen).toEqual({ inside: 1, apart: 0, after: [3] })
    expect(await ids()).toEqual([1, 2, 3])
    expect(routed.decisions.filter(({ reason }) => reason === 'joined')).toMatchObject([
      { intent: 'read', target: 'primary' },
      { intent: 'write', target: 'primary' },
    ])
    const write = async (): Promise<unknown> => db.write(async (tx) => tx.query(insert(9)))
    expect(await codeOf(db.read(write))).toBe('write_in_read_only')
    expect(await codeOf(db.readOnly(write))).toBe('write_in_read_only')
    expect(await ids()).toEqual([1, 2, 3])
  })

  test('inside of a session, too: looks at positions are no part of the transaction around', async () => {
    await using db = await trunkline.routing.slonik()
    await trunkline.routing.session(async (session) => {
      await db.write(async (tx) => {
        await tx.query(insert(1))
        await db.write(async (inner) => inner.query(insert(2)), { requiresNew: true })
        expect(session.isPinned).toBe(false)
        expect(await db.read(async (inner) => inner.oneFirst(count(2)), { requiresNew: true })).toBe(1)
      })
      expect(session.isPinned).toBe(false)
    })
  })

  test('what resolved has committed: a failed statement or joined write whose error was caught is told', async () => {
    await using db = await trunkline.routing.slonik()
    const failed = db.write(async (tx) => {
      await tx.query(insert(1))
      await tx.query(sql.unsafe`select 1/0`).catch(() => undefined)
    })
    expect(await codeOf(failed)).toBe('transaction_aborted')
    const joined = db.write(async (tx) => {
      await tx.query(insert(2))
      await db.write(async () => Promise.reject(new Error('half-way'))).catch(() => undefined)
    })
    expect(await codeOf(joined)).toBe('transaction_aborted')
    // Undone by a savepoint of slonik's.
    await db.write(async (tx) => {
      await tx.query(insert(3))
      await tx.transaction(async (nested) => nested.query(sql.unsafe`select 1/0`)).catch(() => undefined)
    })
    expect(await ids()).toEqual([3])
  })

  test('options: isolation, statement time-out, label, a token; others are refused', async () => {
    await using db = await trunkline.routing.slonik()
    const settings = sql.unsafe`select current_setting('transaction_isolation') as isolation,
      current_setting('statement_timeout') as timeout, current_setting('application_name') as label`
    const options = { isolation: 'repeatable read', statementTimeoutMs: 1_234, label: `it's "me"` } as const
    expect(await db.read(async (tx) => tx.one(settings), options)).toEqual({
      isolation: 'repeatable read',
      timeout: '1234ms',
      label: `it's "me"`,
    })
    expect(routed.decisions.at(-1)).toMatchObject({ label: `it's "me"`, target: 'replica' })
    expect(await db.read(async (tx) => tx.oneFirst(port), { isolation: 'serializable' })).toBe(
      fleet.primary.postgres.port,
    )
    for (const standby of fleet.standbys) await standby.pauseReplay()
    try {
      const { token } = await trunkline.write(async (tx) => tx.query('insert into item values (1)'), {
        withToken: true,
      })
      expect(await db.read(async (tx) => tx.oneFirst(count(1)), { after: token })).toBe(1)
      expect(await db.read(async (tx) => tx.oneFirst(count(1)))).toBe(0)
    } finally {
      for (const standby of fleet.standbys) await standby.resumeReplay()
    }
    expect(await codeOf(db.read(async () => 1, { after: 'x' }))).toBe('invalid_token')
    expect(await codeOf(db.read(async () => 1, { timeoutMs: 1 } as never))).toBe('invalid_option')
    expect(await codeOf(db.write(async () => 1, { after: 'x' } as never))).toBe('invalid_option')
  })

  test('no connection free: told in bounded time, and at once where the caller itself holds them all', async () => {
    await using other = await route(fleet, { routing: { acquireTimeoutMs: 500 } })
    await using db = await other.trunkline.routing.slonik({ maxPoolSize: 1 })
    const held = Promise.withResolvers<void>()
    const holder = db.write(async () => held.promise)
    await eventually(() => other.trunkline.routing.status().nodes[0]?.open === 1)
    expect(await codeOf(db.write(async (tx) => tx.query(insert(1))))).toBe('pool_exhausted')
    held.resolve()
    await holder
    const nested = db.write(async (tx) => {
      await tx.query(insert(2))
      await db.write(async (inner) => inner.query(insert(3)), { requiresNew: true })
    })
    expect(await codeOf(nested)).toBe('self_deadlock')
    // What was given up does not keep the connection.
    await db.write(async (tx) => tx.query(insert(4)))
    expect(await ids()).toEqual([4])
  })

  test('a replica that dies under a read: its function runs again elsewhere, unless that was forbidden', async () => {
    const dying = sql.unsafe`select pg_terminate_backend(pg_backend_pid())`
    for (const transactionRetryLimit of [5, 0]) {
      await using db = await trunkline.routing.slonik({ transactionRetryLimit })
      let runs = 0
      const read = db.read(async (tx) => {
        runs += 1
        // The first failure, and one that slonik tells in words of its own.
        if (runs === 1) await tx.query(dying)
        if (runs === 2) await tx.query(dying).catch(() => undefined)
        return tx.oneFirst(port)
      })
      // The reason, and not what became of slonik's ROLLBACK.
      if (transactionRetryLimit === 0) await expect(read).rejects.toThrow(/terminat/)
      // Both replicas failed.
      else expect(await read).toBe(fleet.primary.postgres.port)
      expect(runs).toBe(transactionRetryLimit === 0 ? 1 : 3)
    }
  })

  test('a replica that is replaced under its name: its connections go with it', async () => {
    await using other = await route(fleet, { replicaUrls: [{ url: fleet.replicaUrls[0]!, name: 'reader' }] })
    const { routing } = other.trunkline
    await using db = await routing.slonik()
    expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(portOfStandby(0))
    await routing.removeReplica('reader')
    await routing.addReplica({ url: fleet.replicaUrls[1]!, name: 'reader' })
    expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(portOfStandby(1))
  })

  test.each([true, false])('a replica that stalls, with a token: %s', { timeout: 60_000 }, async (hasToken) => {
    await using other = await route(fleet, { replicaUrls: [fleet.replicaUrls[0]!] })
    const { routing } = other.trunkline
    await using db = await routing.slonik()
    expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(portOfStandby(0))
    const written = await other.trunkline.write(async (tx) => tx.query('insert into item values (1)'), {
      withToken: true,
    })
    await fleet.caughtUp()
    fleet.proxies[0]!.stall()
    const begun = performance.now()
    try {
      const after = hasToken ? written.token : undefined
      const read = db.read(async (tx) => tx.oneFirst(port), { after })
      // Without one it is there already, and run again when the server is lost.
      expect(await read).toBe(fleet.primary.postgres.port)
      expect(performance.now() - begun).toBeLessThan(20_000)
    } finally {
      await fleet.proxies[0]!.resume()
    }
    await eventually(() => routing.status().nodes.every(({ open }) => open === 0))
    await untilServing(other.trunkline, 1)
    expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(portOfStandby(0))
  })
})
