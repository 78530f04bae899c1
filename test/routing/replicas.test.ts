import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTrunkline, type NodeStatus, type Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually, ownCluster } from '../support/index.ts'
import {
  errorOf,
  type Fleet,
  nameOf,
  portOf,
  route,
  type Routed,
  startFleet,
  stateOf,
  untilServing,
  withClient,
  withPort,
} from './fleet.ts'

describeEachVersion('replicas', (version) => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(version, 2)
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  const portsOf = async (trunkline: Trunkline, count: number): Promise<Map<number, number>> => {
    const ports = new Map<number, number>()
    for (let done = 0; done < count; done += 20) {
      const batch = await Promise.all(Array.from({ length: 20 }, async () => trunkline.read(portOf)))
      for (const port of batch) ports.set(port, (ports.get(port) ?? 0) + 1)
    }
    return ports
  }
  const replicaPorts = (): number[] => fleet.standbys.map(({ postgres }) => postgres.port)

  async function serving(options?: Parameters<typeof route>[1], count = 2): Promise<Routed> {
    const routed = await route(fleet, options)
    await untilServing(routed.trunkline, count)
    return routed
  }

  test('the lag of a standby that answered before the primary is known when the primary has answered', async () => {
    const { primaryProxy, replicaUrls } = fleet
    await using trunkline = createTrunkline({
      url: primaryProxy.url,
      replicaUrls,
      routing: { healthIntervalMs: 60_000 },
    })
    const replicas = (): NodeStatus[] =>
      trunkline.routing.status().nodes.filter(({ name }) => name !== nameOf(primaryProxy.url))
    primaryProxy.stall()
    const started = trunkline.routing.start()
    try {
      await eventually(() => replicas().every(({ lsn }) => lsn !== undefined), { what: 'the standbys have answered' })
    } finally {
      await primaryProxy.resume()
    }
    await started
    expect(replicas().map(({ lagBytes }) => lagBytes)).toEqual([expect.any(Number), expect.any(Number)])
  })

  test('reads are shared, by weight, and the primary gets none', async () => {
    await using even = await serving()
    const ports = await portsOf(even.trunkline, 400)
    expect(new Set(ports.keys())).toEqual(new Set(replicaPorts()))
    expect(Math.min(...ports.values())).toBeGreaterThan(100)
    await using uneven = await serving({
      replicaUrls: [
        { url: fleet.replicaUrls[0]!, weight: 4, name: 'large' },
        { url: fleet.replicaUrls[1]!, name: 'small' },
      ],
    })
    const shares = await portsOf(uneven.trunkline, 400)
    expect(shares.get(replicaPorts()[0]!)! / shares.get(replicaPorts()[1]!)!).toBeGreaterThan(2)
    expect(
      uneven.trunkline.routing
        .status()
        .nodes.map(({ name }) => name)
        .slice(1),
    ).toEqual(['large', 'small'])
  })

  test('a busy replica gets less', async () => {
    await using routed = await serving()
    const { trunkline } = routed
    const release = Promise.withResolvers<void>()
    // Eight long reads: whoever has more of them is passed over.
    const long = Array.from({ length: 8 }, async () =>
      trunkline.read(async (tx) => {
        const port = await portOf(tx)
        await release.promise
        return port
      }),
    )
    await eventually(() => trunkline.routing.status().nodes.reduce((sum, { open }) => sum + open, 0) === 8)
    const open = trunkline.routing
      .status()
      .nodes.slice(1)
      .map((node) => node.open)
    expect(open).toEqual([4, 4])
    release.resolve()
    await Promise.all(long)
    await eventually(() => trunkline.routing.status().nodes.every((node) => node.open === 0))
  })

  test('too far behind: out of rotation until it is well within the limit again', async () => {
    await using routed = await serving({ routing: { maxLagMs: 400 } })
    const { trunkline } = routed
    const name = nameOf(fleet.replicaUrls[0]!)
    await fleet.standbys[0]!.pauseReplay()
    await trunkline.write(async (tx) => tx.query('insert into item values (1)'))
    await eventually(() => stateOf(trunkline, name) === 'lagging')
    expect([...(await portsOf(trunkline, 40)).keys()]).toEqual([replicaPorts()[1]])
    // A read may ask for more than that.
    await fleet.standbys[1]!.untilCaughtUp()
    await fleet.standbys[1]!.pauseReplay()
    await trunkline.write(async (tx) => tx.query('insert into item values (2)'))
    await eventually(() => stateOf(trunkline, nameOf(fleet.replicaUrls[1]!)) === 'lagging')
    expect(await trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
    expect(routed.decisions.at(-1)).toMatchObject({ target: 'primary', reason: 'lagging' })
    for (const standby of fleet.standbys) await standby.resumeReplay()
    await untilServing(trunkline, 2)
    expect([...(await portsOf(trunkline, 40)).keys()]).not.toContain(fleet.primary.postgres.port)
    expect(routed.logger.of('info').filter((line) => line.includes('serves reads again'))).toHaveLength(2)
  })

  test('bytes count, too; and maxLagMs of one read asks for less than the limit', async () => {
    await using routed = await serving({ routing: { maxLagBytes: 1_000 } })
    await using lenient = await serving()
    await fleet.standbys[0]!.pauseReplay()
    await fleet.standbys[1]!.pauseReplay()
    await routed.trunkline.write(async (tx) =>
      tx.query("insert into item select n, repeat('x', 100) from generate_series(100, 200) as n"),
    )
    await eventually(() => stateOf(routed.trunkline, nameOf(fleet.replicaUrls[0]!)) === 'lagging')
    await eventually(() =>
      lenient.trunkline.routing
        .status()
        .nodes.slice(1)
        .every(({ lagMs }) => (lagMs ?? 0) > 50),
    )
    expect(await lenient.trunkline.read(portOf)).not.toBe(fleet.primary.postgres.port)
    expect(await lenient.trunkline.read(portOf, { maxLagMs: 20 })).toBe(fleet.primary.postgres.port)
    for (const standby of fleet.standbys) await standby.resumeReplay()
    await untilServing(routed.trunkline, 2)
  })

  test.each(['cut', 'stall'] as const)(
    'the network of one is gone (%s): no read fails or hangs, and it is used again afterwards',
    { timeout: 60_000 },
    async (fault) => {
      await using routed = await serving()
      const { trunkline } = routed
      const name = nameOf(fleet.replicaUrls[0]!)
      await portsOf(trunkline, 40)
      const begun = performance.now()
      try {
        if (fault === 'cut') await fleet.proxies[0]!.cut()
        else fleet.proxies[0]!.stall()
        const ports = await portsOf(trunkline, 100)
        expect([...ports.keys()]).toEqual([replicaPorts()[1]])
        // A server that does not answer is told from a slow one by the looks at it.
        expect(performance.now() - begun).toBeLessThan(20_000)
        expect(stateOf(trunkline, name)).not.toBe('serving')
      } finally {
        await fleet.proxies[0]!.resume()
      }
      await untilServing(trunkline, 2)
      await eventually(async () => (await portsOf(trunkline, 20)).size === 2, {
        what: 'traffic is back on it',
        timeoutMs: 20_000,
      })
    },
  )

  test('both are gone: the stated fallback, with a cap on what the primary takes', { timeout: 60_000 }, async () => {
    await using routed = await serving({ routing: { fallbackMax: 2, acquireTimeoutMs: 400 } })
    await using refusing = await serving({ routing: { fallback: 'error' } })
    await using tolerant = await serving({ routing: { fallback: 'stale' } })
    for (const proxy of fleet.proxies) await proxy.cut()
    try {
      expect(await routed.trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
      expect(routed.decisions.at(-1)).toMatchObject({ reason: 'unavailable', target: 'primary' })
      for (const { trunkline } of [refusing, tolerant]) {
        expect(await errorOf(trunkline.read(portOf))).toMatchObject({
          name: 'ReplicaUnavailableError',
          code: 'no_replica',
          retryable: true,
        })
      }
      const release = Promise.withResolvers<void>()
      let most = 0
      const reads = Array.from({ length: 6 }, async () =>
        routed.trunkline
          .read(async (tx) => {
            await tx.query('select 1')
            most = Math.max(most, routed.trunkline.routing.status().fallbackReads)
            await release.promise
          })
          .then(
            () => 'done',
            (error: unknown) => (error as { code: string }).code,
          ),
      )
      // Two are in, four wait for their time and say why they were not served.
      const outcomes = Promise.all(reads)
      await eventually(() => routed.decisions.filter(({ reason }) => reason === 'refused').length === 4, {
        what: 'four are refused',
      })
      release.resolve()
      expect((await outcomes).toSorted()).toEqual([
        'done',
        'done',
        ...Array.from({ length: 4 }, () => 'fallback_overloaded'),
      ])
      expect(most).toBe(2)
      // Writes are not held up by it.
      expect(await routed.trunkline.write(portOf)).toBe(fleet.primary.postgres.port)
    } finally {
      for (const proxy of fleet.proxies) await proxy.resume()
    }
    await untilServing(routed.trunkline, 2)
    await eventually(async () => (await routed.trunkline.read(portOf)) !== fleet.primary.postgres.port)
  })

  test('a standby crashes and comes back under load: no read fails', { timeout: 60_000 }, async () => {
    await using routed = await serving()
    const { trunkline } = routed
    const failures: unknown[] = []
    const over = new AbortController()
    let done = 0
    const readers = Array.from({ length: 8 }, async () => {
      while (!over.signal.aborted) {
        await trunkline
          .read(async (tx) => tx.query('select count(*) from item'), { timeoutMs: 5_000 })
          .catch((error: unknown) => failures.push(error))
        done += 1
      }
    })
    for (let round = 0; round < 2; round += 1) {
      const goal = done + 100
      await eventually(() => done > goal)
      await fleet.standbys[0]!.postgres.stop('immediate')
      await eventually(() => done > goal + 200)
      await fleet.standbys[0]!.postgres.start()
      await untilServing(trunkline, 2)
    }
    over.abort()
    await Promise.all(readers)
    expect(failures).toEqual([])
  })

  test('added and taken away at run time', async () => {
    await using routed = await route(fleet, { replicaUrls: [] })
    const { trunkline } = routed
    expect(await trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
    expect(routed.decisions.at(-1)).toMatchObject({ reason: 'no-replicas' })
    await trunkline.routing.addReplica({ url: fleet.replicaUrls[1]!, name: 'second' })
    expect(await trunkline.read(portOf)).toBe(replicaPorts()[1])
    expect(await codeOf(trunkline.routing.addReplica(fleet.replicaUrls[1]!))).toBe('invalid_option')
    const release = Promise.withResolvers<void>()
    const long = trunkline.read(async (tx) => {
      await tx.query('select 1')
      await release.promise
      return portOf(tx)
    })
    await eventually(() => trunkline.routing.status().nodes[1]?.open === 1)
    const removed = trunkline.routing.removeReplica('second')
    expect(await trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
    release.resolve()
    // What ran there may end.
    expect([await long, await removed]).toEqual([replicaPorts()[1], true])
    expect(await trunkline.routing.removeReplica('second')).toBe(false)
    await eventually(() => fleet.proxies[1]!.connectionCount === 0, { what: 'its connections are closed' })
  })

  test('stop while a replica stalls: what runs there is waited for, and then cut', async () => {
    const routed = await serving({ routing: { acquireTimeoutMs: 500 } })
    const { trunkline } = routed
    const begun = Promise.withResolvers<void>()
    const long = trunkline.read(async (tx) => {
      await tx.query('select 1')
      begun.resolve()
      await tx.query('select pg_sleep(30)')
    })
    const failed = errorOf(long)
    await begun.promise
    for (const proxy of fleet.proxies) proxy.stall()
    try {
      const since = performance.now()
      await trunkline.stop()
      expect(performance.now() - since).toBeLessThan(15_000)
      expect(await failed).toMatchObject({ name: 'ConnectionError' })
    } finally {
      for (const proxy of fleet.proxies) await proxy.resume()
    }
    // Started again by its next use.
    expect(await trunkline.read(portOf)).not.toBe(fleet.primary.postgres.port)
    await trunkline.stop()
  })

  test('stop while many wait for a connection: they are served, and those that cannot be are told at once', async () => {
    for (const [seconds, acquireTimeoutMs] of [
      [0.02, 20_000],
      [3, 300],
    ] as const) {
      const { trunkline } = await serving({ routing: { poolSizeMax: 1, acquireTimeoutMs } })
      const reads = Array.from({ length: 20 }, async () =>
        trunkline
          .read(async (tx) => tx.query('select pg_sleep($1)', [seconds]))
          .then(
            () => 'served',
            (error: unknown) => (error as { code: string }).code,
          ),
      )
      await eventually(() => trunkline.routing.status().nodes.reduce((sum, { open }) => sum + open, 0) === 20)
      const since = performance.now()
      await trunkline.stop()
      const outcomes = new Set(await Promise.all(reads))
      expect(performance.now() - since).toBeLessThan(10_000)
      if (acquireTimeoutMs === 20_000) expect([...outcomes]).toEqual(['served'])
      else for (const code of outcomes) expect(['connection_failed', 'pool_exhausted', 'stopped']).toContain(code)
    }
  })

  test('a pool that was given by its parts, without a URL', async () => {
    const { hostname, port, pathname, username } = new URL(fleet.database.url)
    const options = { host: hostname, port: Number(port), database: pathname.slice(1), user: username }
    const pool = new pg.Pool({ ...options, password: 'app_owner' })
    const trunkline = createTrunkline({ pool, replicaUrls: fleet.replicaUrls })
    expect(await trunkline.write(portOf)).toBe(fleet.primary.postgres.port)
    expect(trunkline.routing.status().nodes[0]?.name).toBe(`${hostname}:${port}`)
    // The pool has no listener for errors: one that came after its client was given back would end this process.
    expect(await codeOf(trunkline.write(async (tx) => tx.query('select pg_sleep(20)'), { timeoutMs: 100 }))).toBe(
      'timed_out',
    )
    expect(await trunkline.write(portOf)).toBe(fleet.primary.postgres.port)
    await trunkline.stop()
    await pool.end()
  })

  test('bad input: clear errors', async () => {
    const make =
      (replicaUrls: unknown, routing?: object): (() => unknown) =>
      () =>
        createTrunkline({
          url: fleet.database.url,
          replicaUrls: replicaUrls as string[],
          ...(routing === undefined ? {} : { routing }),
        })
    expect(await codeOf(make([fleet.database.url]))).toBe('replica_is_primary')
    expect(await codeOf(make([fleet.database.adminUrl]))).toBe('replica_is_primary')
    expect(await codeOf(make([fleet.replicaUrls[0], fleet.replicaUrls[0]]))).toBe('invalid_option')
    expect(await codeOf(make(['mysql://x']))).toBe('invalid_url')
    expect(await codeOf(make([{ url: fleet.replicaUrls[0], weight: 0 }]))).toBe('invalid_option')
    for (const routing of [{ fallback: 'never' }, { maxLag: 1 }, { poolSizeMax: 0 }, { waitTimeoutMs: Number.NaN }]) {
      expect(await codeOf(make([], routing))).toBe('invalid_option')
    }
    // The primary under another address, as an address that follows the primary has it after a fail-over: left out, with a warning.
    await using twice = await route(fleet, { url: fleet.database.url, replicaUrls: [fleet.primaryProxy.url] })
    expect(twice.trunkline.routing.status().nodes[1]).toMatchObject({ state: 'misfit' })
    expect(await twice.trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
    // A server of another cluster.
    await using foreign = await ownCluster(version)
    const foreignUrl = withPort(fleet.database.adminUrl, foreign.postgres.port).replace(/\/[^/]*$/, '/postgres')
    const error = await errorOf(route(fleet, { replicaUrls: [foreignUrl] }))
    expect(error).toMatchObject({ name: 'InvalidInputError', code: 'not_a_standby' })
    expect(error.message).toContain(nameOf(foreignUrl))
    // The same at run time; what was there before goes on.
    await using routed = await serving()
    expect(await codeOf(routed.trunkline.routing.addReplica(foreignUrl))).toBe('not_a_standby')
    await untilServing(routed.trunkline, 2)
    // A password is in no message.
    const secret = await errorOf(route(fleet, { replicaUrls: [foreignUrl.replace('postgres@', 'postgres:hunter2@')] }))
    expect(`${secret.message}${secret.stack}`).not.toContain('hunter2')
  })

  test('no replica can be reached at start: it starts, and says so', { timeout: 30_000 }, async () => {
    for (const proxy of fleet.proxies) await proxy.cut()
    try {
      await using routed = await route(fleet)
      expect(await routed.trunkline.read(portOf)).toBe(fleet.primary.postgres.port)
      expect(routed.decisions).toMatchObject([{ reason: 'unavailable' }])
      for (const proxy of fleet.proxies) await proxy.resume()
      await untilServing(routed.trunkline, 2)
      expect(await routed.trunkline.read(portOf)).not.toBe(fleet.primary.postgres.port)
    } finally {
      for (const proxy of fleet.proxies) await proxy.resume()
    }
  })

  test(
    'replay cancels a statement: once more elsewhere while nothing was shown, a typed error after that',
    { timeout: 60_000 },
    async () => {
      for (const url of fleet.directUrls) {
        await withClient(withPort(fleet.database.adminUrl, Number(new URL(url).port)), async (admin) => {
          await admin.query("alter system set max_standby_streaming_delay = '50ms'").catch(() => undefined)
          await admin.query('select pg_reload_conf()')
        })
      }
      await using routed = await serving()
      const { trunkline } = routed
      const remove = async (): Promise<void> => {
        await fleet.database.query('create table if not exists doomed (id integer)')
        await fleet.caughtUp()
        await fleet.database.query('insert into doomed values (1)')
        await fleet.caughtUp()
      }
      await remove()
      // After rows: the statement's table is dropped under an open transaction.
      const shown = trunkline.read(async (tx) => {
        await tx.query('select * from doomed')
        await fleet.database.query('drop table doomed')
        await tx.query('select pg_sleep(20)')
      })
      expect(await errorOf(shown)).toMatchObject({
        name: 'RecoveryConflictError',
        code: 'recovery_conflict',
        retryable: true,
      })
      // Before any: one replica is made to conflict, the other has not replayed the drop.
      await remove()
      const first = trunkline.read(async (tx) => {
        const { rows } = await tx.query(
          'select inet_server_port() as port, (select count(*) from doomed) as n, pg_sleep(1.5)',
        )
        return (rows[0] as { port: number }).port
      })
      await eventually(() =>
        trunkline.routing
          .status()
          .nodes.slice(1)
          .some(({ open }) => open > 0),
      )
      const victim = trunkline.routing
        .status()
        .nodes.slice(1)
        .findIndex(({ open }) => open > 0)
      const spared = fleet.standbys[1 - victim]!
      await spared.pauseReplay()
      await fleet.database.query('drop table doomed')
      expect(await first).toBe(spared.postgres.port)
      expect(routed.decisions.slice(-2).map(({ reason }) => reason)).toEqual(['replica', 'conflict'])
      await spared.resumeReplay()
    },
  )
})
