import { once } from 'node:events'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { createTrunkline, type Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { errorOf, type Fleet, nameOf, portOf, route, type Routed, startFleet, untilServing } from './fleet.ts'

describeEachVersion('what callers do wrong', (version) => {
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
  })

  const insert = 'insert into item values ($1)'
  const ids = async (): Promise<unknown[]> =>
    (await fleet.database.query<{ id: number }>('select id from item order by id')).map(({ id }) => id)

  test('listeners that throw: logged, and nothing else', async () => {
    await using other = await route(fleet, { routing: { poolSizeMax: 1, acquireTimeoutMs: 500 } })
    const fail = (): never => {
      throw new Error('of the listener')
    }
    other.trunkline.routing.on('decision', fail)
    // More often than there are connections: none is lost.
    for (let count = 0; count < 3; count += 1) {
      await other.trunkline.write(portOf)
      await other.trunkline.read(portOf)
    }
    expect(other.logger.of('error').filter((line) => line.includes('of the listener')).length).toBeGreaterThanOrEqual(6)
    const early = createTrunkline({
      url: fleet.primaryProxy.url,
      replicaUrls: fleet.replicaUrls,
      routing: { healthIntervalMs: 50 },
    })
    early.routing.on('primary', fail)
    // The looks go on.
    await early.routing.start()
    await untilServing(early, 2)
    await early.stop()
  })

  test('a replica URL of another database of the right standby: refused at start and at run time', async () => {
    const other = fleet.replicaUrls[0]!.replace(/\/[^/]*$/, '/postgres')
    const error = await errorOf(route(fleet, { replicaUrls: [other] }))
    expect(error).toMatchObject({ name: 'InvalidInputError', code: 'other_database' })
    expect(error.message).toContain('postgres')
    await using one = await route(fleet, { replicaUrls: [fleet.replicaUrls[1]!] })
    expect(await codeOf(one.trunkline.routing.addReplica(other))).toBe('other_database')
    expect(one.trunkline.routing.status().nodes).toHaveLength(2)
  })

  test('names: each its own, by default with the database where that is needed, and with the directory of a socket', async () => {
    const named = fleet.replicaUrls.map((url) => ({ url, name: 'same' }))
    expect(await codeOf(() => createTrunkline({ url: fleet.database.url, replicaUrls: named }))).toBe('invalid_option')
    const namesOf = (url: string, replicaUrls: string[]): string[] =>
      createTrunkline({ url, replicaUrls })
        .routing.status()
        .nodes.map(({ name }) => name)
    expect(namesOf('postgres://pooler:6432/app', ['postgres://pooler:6432/app_standby'])).toEqual([
      'pooler:6432',
      'pooler:6432/app_standby',
    ])
    expect(namesOf('postgres:///app?host=/run/one', ['postgres://%2Frun%2Ftwo/app'])).toEqual([
      '/run/one:5432',
      '/run/two:5432',
    ])
    expect(
      await codeOf(() => namesOf('postgres:///app?host=/run/one', ['postgres:///app?host=/run/one&port=5432'])),
    ).toBe('replica_is_primary')
  })

  test('the connection of a transaction after its end, by every way: refused; given back inside: the transaction keeps it', async () => {
    let kept: Awaited<ReturnType<Parameters<Parameters<Trunkline['write']>[0]>[0]['client']>> | undefined
    await trunkline.write(async (tx) => {
      kept = await tx.client()
      kept.release()
      await kept.query(insert, [1])
      // Of others: they do not get this connection while it is in use.
      await Promise.all(Array.from({ length: 3 }, async () => trunkline.write(portOf, { requiresNew: true })))
      await tx.query(insert, [2])
    })
    const client = kept!
    expect(await codeOf(client.query(insert, [3]))).toBe('transaction_ended')
    const told = await new Promise<unknown>((resolve) => client.query(insert, [3], resolve))
    expect(told).toMatchObject({ code: 'transaction_ended' })
    expect(await codeOf(() => client.query(new pg.Query(insert, [3])))).toBe('transaction_ended')
    expect(await ids()).toEqual([1, 2])
  })

  test('a query that tells its rows by events as the first statement; what a timer sends after the end', async () => {
    const found = await trunkline.read(async (tx) => {
      const client = await tx.client()
      const query = client.query(new pg.Query('select n from generate_series(1, $1::integer) as n', [3]))
      const rows: unknown[] = []
      query.on('row', (row: { n: number }) => rows.push(row.n))
      await once(query, 'end')
      return rows
    })
    expect(found).toEqual([1, 2, 3])
    const late = Promise.withResolvers<unknown>()
    await trunkline.write(async (tx) => {
      await tx.query(insert, [1])
      setTimeout(() => void tx.query(insert, [2]).catch(late.resolve), 20)
    })
    expect(await late.promise).toMatchObject({ code: 'transaction_ended' })
    expect(await ids()).toEqual([1])
  })

  test('statements side by side, as the first of a transaction: one BEGIN, one transaction', async () => {
    const seen = await trunkline.write(async (tx) =>
      Promise.all(
        [1, 2, 3].map(async (id) => {
          const { rows } = await tx.query<{ x: string }>(`${insert} returning txid_current()::text as x`, [id])
          return rows[0]?.x
        }),
      ),
    )
    expect(new Set(seen).size).toBe(1)
    // One of them fails: nothing of the others is kept, whichever was first.
    const failing = trunkline.write(async (tx) =>
      Promise.all([tx.query(insert, [4]), tx.query('select 1/0'), tx.query(insert, [5])]),
    )
    expect(await codeOf(failing)).toBe('22012')
    expect(await ids()).toEqual([1, 2, 3])
  })

  test('savepoints of the function’s own: what failed inside of one is undone, the rest commits', async () => {
    await trunkline.write(async (tx) => {
      await tx.query('savepoint a')
      await tx.query(insert, [1])
      await tx.query('select 1/0').catch(() => undefined)
      await tx.query('rollback to savepoint a')
      await tx.query(insert, [2])
    })
    expect(await ids()).toEqual([2])
  })

  test('a signal: ends what is under way with its reason; one that was given before: nothing is sent', async () => {
    const controller = new AbortController()
    const reason = new Error('the client has gone')
    const begun = performance.now()
    const started = Promise.withResolvers<void>()
    const write = errorOf(
      trunkline.write(
        async (tx) => {
          await tx.query(insert, [1])
          started.resolve()
          await tx.query('select pg_sleep(20)')
        },
        { signal: controller.signal },
      ),
    )
    await started.promise
    controller.abort(reason)
    expect(await write).toBe(reason)
    expect(performance.now() - begun).toBeLessThan(15_000)
    routed.decisions.length = 0
    expect(await errorOf(trunkline.read(portOf, { signal: controller.signal }))).toBe(reason)
    expect(await errorOf(trunkline.write(portOf, { signal: controller.signal }))).toBe(reason)
    expect(routed.decisions).toEqual([])
    expect(await codeOf(trunkline.read(portOf, { signal: 'stop' as never }))).toBe('invalid_option')
    expect(await ids()).toEqual([])
    await eventually(() => trunkline.routing.status().nodes.every(({ open }) => open === 0))
  })

  test('no longest time, however it is said', async () => {
    await using other = await route(fleet, { routing: { timeoutMs: 3_000_000_000 } })
    const sleep = async (tx: { query(text: string): Promise<unknown> }): Promise<unknown> =>
      tx.query('select pg_sleep(0.05)')
    await other.trunkline.read(sleep)
    await other.trunkline.read(sleep, { timeoutMs: 0 })
    expect(nameOf(fleet.primaryProxy.url)).toBe(other.trunkline.routing.status().primary)
  })
})
