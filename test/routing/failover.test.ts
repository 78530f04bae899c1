import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import { queryAfter } from '../../src/routing/wire.ts'
import { startEmbeddedPostgres } from '../../src/testing/embedded-postgres.ts'
import { codeOf } from '../cache/cached.ts'
import { install } from '../log/captured.ts'
import { RecordingSink } from '../relay/relaying.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { errorOf, type Fleet, nameOf, portOf, route, startFleet, stateOf, untilServing, withClient } from './fleet.ts'

const insert = 'insert into item values ($1) on conflict do nothing'

describeEachVersion('fail-over', (version) => {
  test(
    'the primary dies, a standby is promoted: writes go there, reads never to what follows the old history',
    { timeout: 90_000 },
    async () => {
      await using fleet = await startFleet(version, 2)
      await using routed = await route(fleet)
      const { trunkline } = routed
      await untilServing(trunkline, 2)
      const primaries: (string | undefined)[] = []
      trunkline.routing.on('primary', (node) => primaries.push(node))
      const { token } = await trunkline.write(async (tx) => tx.query(insert, [1]), { withToken: true })
      await fleet.caughtUp()
      await fleet.primary.postgres.stop('immediate')

      // Without a primary: reads go on, also with a token that was replayed; writes fail in their time, and say so.
      expect(await trunkline.read(async (tx) => (await tx.query('select id from item')).rows)).toEqual([{ id: 1 }])
      expect(await trunkline.read(portOf, { after: token })).not.toBe(fleet.primary.postgres.port)
      await using hasty = await route(fleet, { routing: { acquireTimeoutMs: 200 } })
      const begun = performance.now()
      expect(await errorOf(hasty.trunkline.write(portOf))).toMatchObject({
        name: 'NoPrimaryError',
        code: 'no_primary',
        retryable: true,
      })
      expect(performance.now() - begun).toBeLessThan(4_500)

      // One that comes during the fail-over waits for it.
      const waiting = trunkline.write(async (tx) => tx.query(insert, [2]), { withToken: true })
      const [promoted, left] = fleet.standbys
      await promoted!.promote()
      const later = await waiting
      expect(later.token).toMatch(/:2:/)
      expect(await trunkline.write(portOf)).toBe(promoted!.postgres.port)
      expect(primaries).toEqual([undefined, nameOf(fleet.replicaUrls[0]!)])

      // The other standby still follows the old history: it serves nobody.
      await eventually(() => stateOf(trunkline, nameOf(fleet.replicaUrls[1]!)) === 'other-timeline')
      expect(await trunkline.read(portOf)).toBe(promoted!.postgres.port)
      for (const after of [token, later.token]) {
        expect(await trunkline.read(portOf, { after })).not.toBe(left!.postgres.port)
      }

      // The old primary comes back, unfenced: it is out of recovery, and on the lower timeline.
      await fleet.primary.postgres.start()
      await eventually(() => stateOf(trunkline, nameOf(fleet.primaryProxy.url)) === 'not-a-standby')
      expect(await trunkline.write(portOf)).toBe(promoted!.postgres.port)
      // The promoted one goes: the old one has been overtaken, and gets no write.
      await fleet.proxies[0]!.cut()
      const tryToWrite = async (): Promise<string> =>
        codeOf(trunkline.write(async (tx) => tx.query(insert, [3]), { timeoutMs: 8_000 }))
      // The first ones may meet connections that were just cut.
      await eventually(async () => (await tryToWrite()) === 'no_primary', { timeoutMs: 20_000 })
      await withClient(fleet.database.url, async (old) => {
        expect((await old.query('select id from item')).rows).toEqual([{ id: 1 }])
      })
    },
  )

  test(
    'promoted behind our back: a replica’s old connections notice, and no write went astray',
    { timeout: 60_000 },
    async () => {
      await using fleet = await startFleet(version, 1)
      // Nobody looks: only what connections tell is left.
      await using routed = await route(fleet, { routing: { healthIntervalMs: 600_000 } })
      const { trunkline } = routed
      await trunkline.read(portOf)
      await fleet.primary.postgres.stop('immediate')
      await fleet.standbys[0]!.promote()
      // On 14 and newer the answer to a read says so; on older ones a connection is asked when it was not for a second.
      await eventually(
        async () => {
          await trunkline.read(portOf, { timeoutMs: 3_000 })
          return trunkline.routing.status().primary === nameOf(fleet.replicaUrls[0]!)
        },
        { what: 'the promotion is noticed', timeoutMs: 20_000, intervalMs: 100 },
      )
      expect(await trunkline.write(portOf)).toBe(fleet.standbys[0]!.postgres.port)
    },
  )

  test(
    'the address of the primary leads to a standby: BEGIN is refused, nothing is written, the new primary is found',
    { timeout: 90_000 },
    async () => {
      await using fleet = await startFleet(version, 2)
      // What a load balancer or DNS does: the name stays, the server behind it changes. Here: standby first, then believed primary.
      await using routed = await route(fleet, {
        url: fleet.replicaUrls[0]!,
        replicaUrls: [fleet.primaryProxy.url, fleet.replicaUrls[1]!],
      })
      expect(await routed.trunkline.write(portOf)).toBe(fleet.primary.postgres.port)
      // A router that still believes in the wrong server.
      const stubborn = createTrunkline({
        url: fleet.replicaUrls[0]!,
        replicaUrls: [],
        routing: { healthIntervalMs: 600_000, acquireTimeoutMs: 300 },
      })
      expect(await codeOf(stubborn.write(async (tx) => tx.query(insert, [7])))).toBe('no_primary')
      await stubborn.stop()
      expect(await fleet.database.query('select from item')).toHaveLength(0)
    },
  )

  test('a write that is open on the old primary when the new one is seen fails, and commits nowhere', async () => {
    await using fleet = await startFleet(version, 1)
    await using routed = await route(fleet)
    const { trunkline } = routed
    await untilServing(trunkline, 1)
    const error = await errorOf(
      trunkline.write(async (tx) => {
        await tx.query(insert, [1])
        await fleet.standbys[0]!.promote()
        await eventually(() => trunkline.routing.status().primary === nameOf(fleet.replicaUrls[0]!))
      }),
    )
    expect(error).toMatchObject({ name: 'ConnectionError', code: 'connection_failed', retryable: true })
    expect(await fleet.database.query('select from item')).toHaveLength(0)
  })

  test('two servers out of recovery on one timeline: nothing is written', async () => {
    await using fleet = await startFleet(version, 1)
    await using other = await startFleetTwin(fleet)
    await using routed = await route(fleet, {
      replicaUrls: [other.url],
      routing: { acquireTimeoutMs: 200 },
    }).catch((error: unknown) => Promise.reject(error as Error))
    const error = await errorOf(routed.trunkline.write(async (tx) => tx.query(insert, [1])))
    expect(error).toMatchObject({ name: 'NoPrimaryError', code: 'two_primaries' })
    expect(error.message).toContain(nameOf(other.url))
    expect(await fleet.database.query('select from item')).toHaveLength(0)
  })

  test('a write that a standby would get: refused by the server itself', async () => {
    await using fleet = await startFleet(version, 1)
    await using routed = await route(fleet)
    const { trunkline } = routed
    // The client code that the runtime sends to a server that is no primary any more.
    await withClient(fleet.directUrls[0]!, async (client) => {
      const outcome = await queryAfter(client, ['begin read write'], { text: insert, values: [5] })
      expect(outcome).toMatchObject({ hasBegun: false, error: { code: '0A000' } })
      expect((await client.query('select 1 as one')).rows).toEqual([{ one: 1 }])
    })
    expect(await trunkline.read(async (tx) => (await tx.query('select from item')).rowCount)).toBe(0)
  })

  test('the change log follows: caches are level with the new primary', { timeout: 90_000 }, async () => {
    await using fleet = await startFleet(version, 1)
    await install(fleet.database.url)
    await fleet.database.query("select trunkline.capture('item'); insert into item values (1, 'a')")
    await fleet.caughtUp()
    await using trunkline = createTrunkline({
      url: fleet.primaryProxy.url,
      replicaUrls: fleet.replicaUrls,
      routing: { healthIntervalMs: 50 },
    })
    await trunkline.start()
    const items = await trunkline.cache<{ id: number; note: string }>('item')
    expect(items.size).toBe(1)
    // The old primary stays up, and must not be followed any longer.
    await fleet.standbys[0]!.promote()
    await eventually(() => trunkline.routing.status().timeline === 2, { what: 'the promotion is seen' })
    await trunkline.write(async (tx) => tx.query("insert into item values (2, 'b')"))
    await eventually(() => items.get(2)?.note === 'b', { what: 'the cache has it', timeoutMs: 20_000 })
    await items.fresh()
    expect(items.status).toBe('live')
    await eventually(() => trunkline.mode === 'listen', { what: 'it listens there', timeoutMs: 20_000 })
    await fleet.database.query("insert into item values (3, 'lost')").catch(() => undefined)
    await items.fresh()
    expect(items.get(3)).toBeUndefined()
    expect((await trunkline.pool.query('select inet_server_port() as port')).rows).toEqual([
      { port: fleet.standbys[0]!.postgres.port },
    ])
  })

  test('a relay follows: what is written on the new primary is delivered', { timeout: 90_000 }, async () => {
    await using fleet = await startFleet(version, 1)
    await install(fleet.database.url)
    await fleet.caughtUp()
    const sink = new RecordingSink()
    await using trunkline = createTrunkline({
      url: fleet.primaryProxy.url,
      replicaUrls: fleet.replicaUrls,
      routing: { healthIntervalMs: 50 },
    })
    const relay = trunkline.relay({ name: 'follower', topics: ['orders'], sink, leaseMs: 2_000 })
    await relay.start()
    const emit = async (n: number): Promise<unknown> =>
      trunkline.write(async (tx) => trunkline.emit(tx, { topic: 'orders', key: 'a', payload: { n } }))
    await emit(1)
    await eventually(() => sink.of('a').length === 1, { what: 'the first is delivered' })
    await relay.drained()
    await fleet.caughtUp()
    // The old primary stays up, and must not be read any longer.
    await fleet.standbys[0]!.promote()
    await eventually(() => trunkline.routing.status().timeline === 2, { what: 'the promotion is seen' })
    await emit(2)
    await eventually(() => sink.of('a').some((payload) => (payload as { n: number }).n === 2), {
      what: 'the second is delivered',
      timeoutMs: 30_000,
    })
    expect(relay.failure).toBeUndefined()
    await relay.stop()
  })
})

/** A clone of the primary that runs on its own with the same timeline: what a restored backup is. */
async function startFleetTwin(fleet: Fleet): Promise<{ url: string } & AsyncDisposable> {
  const { version } = fleet.primary.postgres
  const twin = await startEmbeddedPostgres({ version, standbyOf: fleet.primary.postgres })
  await twin.stop()
  await rm(join(twin.dataDirectory, 'standby.signal'))
  await twin.start()
  const url = new URL(fleet.database.url)
  url.port = String(twin.port)
  return { url: url.href, [Symbol.asyncDispose]: () => twin.dispose() }
}
