import pg from 'pg'
import { createPool, sql } from 'slonik'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { createTrunkline, type Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { install } from '../log/captured.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { type Fleet, portOf, route, type Routed, startFleet, untilServing } from './fleet.ts'

describeEachVersion('pools for query builders, and slonik', (version) => {
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
  beforeEach(async () => {
    await fleet.database.query('truncate item')
    await fleet.caughtUp()
    routed.decisions.length = 0
  })

  const primaryPort = (): number => fleet.primary.postgres.port
  const replicaPort = (): number => fleet.standbys[0]!.postgres.port

  test('a connection that is given back in an open transaction is closed: nobody else commits what was done in it', async () => {
    await using single = await route(fleet, { routing: { poolSizeMax: 1 } })
    const { write } = single.trunkline.routing.pools()
    const leave = async (): Promise<void> => {
      const client = await write.connect()
      await client.query('begin')
      await client.query('insert into item values (1)')
      client.release()
    }
    await leave()
    await single.trunkline.write(async (tx) => tx.query('insert into item values (2)'))
    await single.trunkline.routing.session(leave)
    await single.trunkline.write(async (tx) => tx.query('insert into item values (3)'))
    expect(await fleet.database.query('select id from item order by id')).toEqual([{ id: 2 }, { id: 3 }])
  })

  test('two pools as pg has them: connect, query, callbacks, and what query builders ask for', async () => {
    const { read, write } = trunkline.routing.pools()
    expect([read instanceof pg.Pool, write instanceof pg.Pool]).toEqual([true, true])
    expect([await portOf(read), await portOf(write)]).toEqual([replicaPort(), primaryPort()])
    const client = await write.connect()
    await client.query('begin')
    await client.query('insert into item values (1)')
    await client.query('rollback')
    client.release()
    expect(() => client.release()).toThrow(/already been released/)
    const called = await new Promise<unknown>((resolve, reject) => {
      read.query('select 1 as one', (error: Error | undefined, result: pg.QueryResult) =>
        error === undefined ? resolve(result.rows) : reject(error),
      )
    })
    expect(called).toEqual([{ one: 1 }])
    expect(await codeOf(read.query('insert into item values (1)'))).toBe('25006')
    await read.end()
    await write.end()
    await eventually(() => trunkline.routing.status().nodes.every(({ open }) => open === 0))
    expect(routed.decisions.map(({ intent, target }) => `${intent} ${target}`)).toEqual([
      'read replica',
      'write primary',
      'write primary',
      'read replica',
      'read replica',
    ])
  })

  test('a session’s reads on a pool see what it wrote on the other', async () => {
    const { read, write } = trunkline.routing.pools()
    await fleet.standbys[0]!.pauseReplay()
    try {
      await trunkline.routing.session(async (session) => {
        await write.query('insert into item values (1)')
        expect((await read.query('select from item')).rowCount).toBe(1)
        await session.settled()
        expect(session.token).toBeDefined()
      })
      expect((await read.query('select from item')).rowCount).toBe(0)
      expect(routed.decisions.map(({ reason }) => reason)).toEqual(['write', 'token-not-reached', 'replica'])
    } finally {
      await fleet.standbys[0]!.resumeReplay()
    }
  })

  test('the read pool cannot write, not even when the primary stands in', async () => {
    await using alone = await route(fleet, { replicaUrls: [] })
    const { read } = alone.trunkline.routing.pools()
    expect(await portOf(read)).toBe(primaryPort())
    expect(await codeOf(read.query('insert into item values (1)'))).toBe('25006')
    const client = await read.connect()
    await client.query('begin')
    expect(await codeOf(client.query('insert into item values (1)'))).toBe('25006')
    client.release(true)
    expect(await fleet.database.query('select from item')).toEqual([])
  })

  test('an existing pool is used for the primary and not ended', async () => {
    const own = new pg.Pool({ connectionString: fleet.database.url, max: 2, application_name: 'mine' })
    const made = createTrunkline({ pool: own, replicaUrls: fleet.replicaUrls, routing: { healthIntervalMs: 50 } })
    const show = async (tx: { query(text: string): Promise<{ rows: unknown[] }> }): Promise<unknown> =>
      (await tx.query("select current_setting('application_name') as name")).rows[0]
    expect(await made.write(show)).toEqual({ name: 'mine' })
    expect(await made.read(portOf)).toBe(replicaPort())
    await made.stop()
    expect((await own.query('select 1 as one')).rows).toEqual([{ one: 1 }])
    await own.end()
  })

  test('slonik: read goes to the replica and is read-only, write and all else to the primary', async () => {
    await using db = await trunkline.routing.slonik()
    const port = sql.unsafe`select inet_server_port() as port`
    expect(await db.read(async (tx) => tx.oneFirst(port))).toBe(replicaPort())
    expect(await db.write(async (tx) => tx.oneFirst(port))).toBe(primaryPort())
    expect(await db.pool.oneFirst(port)).toBe(primaryPort())
    expect(await db.pool.connect(async (connection) => connection.oneFirst(port))).toBe(primaryPort())
    expect(await db.readOnly(async () => db.pool.oneFirst(port))).toBe(replicaPort())
    expect(await db.readOnly(async () => db.pool.transaction(async (tx) => tx.oneFirst(port)))).toBe(replicaPort())
    const insert = sql.unsafe`insert into item values (${1})`
    await expect(db.read(async (tx) => tx.query(insert))).rejects.toMatchObject({ code: '25006' })
    await expect(
      db.write(async (tx) => {
        await tx.query(insert)
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    expect(await fleet.database.query('select from item')).toEqual([])
    await db.write(async (tx) => tx.query(insert))
    expect(await fleet.database.query('select id from item')).toEqual([{ id: 1 }])
    expect(new Set(routed.decisions.map(({ intent, target }) => `${intent} ${target}`))).toEqual(
      new Set(['read replica', 'write primary']),
    )
    await eventually(() => trunkline.routing.status().nodes.every(({ open }) => open === 0))
  })

  test('slonik: a session’s reads see its writes, and the fallback cannot write', async () => {
    await using db = await trunkline.routing.slonik({ maxPoolSize: 3 })
    const count = async (): Promise<unknown> =>
      db.read(async (tx) => tx.oneFirst(sql.unsafe`select count(*)::integer from item`))
    await fleet.standbys[0]!.pauseReplay()
    try {
      await trunkline.routing.session(async (session) => {
        await db.write(async (tx) => tx.query(sql.unsafe`insert into item values (1)`))
        expect(session.token).toMatch(/^\d+:1:/)
        expect(await count()).toBe(1)
        await expect(db.read(async (tx) => tx.query(sql.unsafe`insert into item values (2)`))).rejects.toMatchObject({
          code: '25006',
        })
      })
      expect(await count()).toBe(0)
    } finally {
      await fleet.standbys[0]!.resumeReplay()
    }
    await fleet.caughtUp()
    await trunkline.routing.session(async () => {
      await db.write(async (tx) => tx.query(sql.unsafe`insert into item values (3)`))
      expect(await count()).toBe(2)
    })
    expect(routed.decisions.filter(({ reason }) => reason === 'token-not-reached')).toHaveLength(2)
  })

  test('slonik: interceptors of the user still see their queries; the user’s own pool is left alone', async () => {
    const seen: string[] = []
    await using db = await trunkline.routing.slonik({
      interceptors: [{ name: 'mine', beforeQueryExecution: (_context, query) => (seen.push(query.sql), null) }],
    })
    await db.read(async (tx) => tx.oneFirst(sql.unsafe`select 17`))
    expect(seen).toEqual(['select 17'])
    const other = await createPool(fleet.database.url)
    expect(await other.oneFirst(sql.unsafe`select inet_server_port()`)).toBe(primaryPort())
    await other.end()
  })

  test('emit works in a routed transaction: the event and the row, both or neither', async () => {
    await install(fleet.database.url)
    const emitOne = async (tx: Parameters<Trunkline['emit']>[0]): Promise<unknown> =>
      trunkline.emit(tx, { topic: 'orders', payload: { a: 1 } })
    await trunkline.write(emitOne)
    await expect(
      trunkline.write(async (tx) => {
        await emitOne(tx)
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    const [row] = await fleet.database.query<{ n: number }>('select count(*)::integer as n from trunkline.log')
    expect(row?.n).toBe(1)
  })
})
