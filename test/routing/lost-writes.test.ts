import { expect, test } from 'vitest'
import { carrierNameDefault, createTrunkline, WriteLostError, type Trunkline } from '../../src/index.ts'
import { signToken } from '../../src/routing/token.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { disconnect, errorOf, type Fleet, follow, nameOf, portOf, route, startFleet, untilServing } from './fleet.ts'

const insert = 'insert into item values ($1)'

describeEachVersion('what a fail-over loses is told', (version) => {
  const write = async (trunkline: Trunkline, id: number): Promise<string> =>
    (await trunkline.write(async (tx) => tx.query(insert, [id]), { withToken: true })).token!

  /** A standby that got 1 and not 2 is promoted; the other one follows it. */
  async function failOver(fleet: Fleet, trunkline: Trunkline): Promise<{ kept: string; lost: string }> {
    const [promoted, follower] = fleet.standbys
    const kept = await write(trunkline, 1)
    await fleet.caughtUp()
    await disconnect(promoted!)
    await disconnect(follower!)
    const lost = await write(trunkline, 2)
    await fleet.primary.postgres.stop('immediate')
    await promoted!.promote()
    await follow(follower!, promoted!)
    await eventually(() => trunkline.routing.status().primary === nameOf(fleet.replicaUrls[0]!), {
      what: 'the new primary is known',
      timeoutMs: 20_000,
    })
    return { kept, lost }
  }

  test('reads, joined reads, pools and sessions with the token of a lost write fail; those with an older one do not', async () => {
    await using fleet = await startFleet(version, 2)
    await fleet.database.adminQuery('grant pg_read_all_stats to app_owner')
    await using routed = await route(fleet)
    const { trunkline } = routed
    await untilServing(trunkline, 2)
    const { kept, lost } = await failOver(fleet, trunkline)
    const ids = async (tx: { query(text: string): Promise<{ rows: unknown[] }> }): Promise<unknown> =>
      (await tx.query('select id from item order by id')).rows
    expect(await trunkline.read(ids, { after: kept })).toEqual([{ id: 1 }])

    const error = await errorOf(trunkline.read(ids, { after: lost }))
    expect(error).toBeInstanceOf(WriteLostError)
    expect(error).toMatchObject({ code: 'write_lost', retryable: false, details: { token: lost, timeline: 2 } })
    // A token lasts: it is told each time.
    expect(await errorOf(trunkline.read(ids, { after: lost }))).toMatchObject({ code: 'write_lost' })
    // Also where the primary's transaction has begun, and where the session is at a later place already.
    const joined = trunkline.write(async (tx) => {
      await tx.query('select 1')
      return trunkline.read(ids, { after: lost })
    })
    expect(await errorOf(joined)).toMatchObject({ code: 'write_lost' })
    const further = trunkline.routing.session(async () => {
      await trunkline.write(async (tx) => tx.query(insert, [3]))
      return trunkline.read(ids, { after: lost })
    })
    expect(await errorOf(further)).toMatchObject({ code: 'write_lost' })

    // A session is told once, whatever it does first, and goes on from the new primary.
    const { read } = trunkline.routing.pools()
    const calls = [
      async () => trunkline.read(ids),
      async () => trunkline.write(ids),
      async () => ids(read),
      async () => ids(trunkline.routing.pools().write),
    ]
    for (const call of calls) {
      await trunkline.routing.session(
        async (session) => {
          expect(await errorOf(call())).toMatchObject({ code: 'write_lost' })
          expect(session.token).toMatch(/^\d+:2:/)
          expect(await call()).toContainEqual({ id: 1 })
        },
        { token: lost },
      )
    }
    // A client of a carrier has a new token with the very answer that tells it.
    const carrier = trunkline.routing.carrier({ secret: 'sixteen characters', by: 'header' })
    const client = carrier.begin({ [carrierNameDefault]: signToken(lost, 'sixteen characters') })
    const request = trunkline.routing.runIn(client, async () => trunkline.read(ids))
    expect(await errorOf(request)).toMatchObject({ code: 'write_lost' })
    expect(carrier.headersOf(client)[0]?.[1]).toMatch(/^\d+:2:/)
    // A process that was not there learns it from the primary.
    await using later = await route(fleet, { url: fleet.replicaUrls[0]!, replicaUrls: [fleet.replicaUrls[1]!] })
    expect(await errorOf(later.trunkline.read(ids, { after: lost }))).toMatchObject({ code: 'write_lost' })
    expect(await later.trunkline.read(ids, { after: kept })).toEqual([{ id: 1 }, { id: 3 }])
  })

  test('a write whose position could not be asked for: its session is told after a fail-over, once', async () => {
    await using fleet = await startFleet(version, 2)
    await using routed = await route(fleet)
    const { trunkline } = routed
    await untilServing(trunkline, 2)
    const { read, write: writePool } = trunkline.routing.pools()
    for (const standby of fleet.standbys) await disconnect(standby)
    await trunkline.routing.session(async (session) => {
      const client = await writePool.connect()
      await client.query(insert, [1])
      fleet.primaryProxy.stall()
      client.release()
      await fleet.primary.postgres.stop('immediate')
      await fleet.primaryProxy.cut()
      await session.settled()
      expect([session.isPinned, session.token]).toEqual([true, undefined])
      await fleet.standbys[0]!.promote()
      await eventually(() => trunkline.routing.status().primary === nameOf(fleet.replicaUrls[0]!), {
        timeoutMs: 20_000,
      })
      expect(await errorOf(read.query('select id from item'))).toMatchObject({ code: 'write_lost' })
      expect((await read.query('select id from item')).rows).toEqual([])
    })
  })

  test('the address of the primary leads to another server: its connections show it before a read with a token', async () => {
    await using fleet = await startFleet(version, 1)
    await using trunkline = createTrunkline({
      url: fleet.primaryProxy.url,
      replicaUrls: [],
      // Nobody looks: only the connection of the read is left.
      routing: { healthIntervalMs: 600_000, acquireTimeoutMs: 1_500 },
    })
    await disconnect(fleet.standbys[0]!)
    const lost = await write(trunkline, 2)
    await fleet.primary.postgres.stop('immediate')
    fleet.primaryProxy.redirect(fleet.directUrls[0]!)
    fleet.primaryProxy.reset()
    // A standby is behind the name: a read without a token runs there, one with it does not.
    const found = await eventually(async () => errorOf(trunkline.read(portOf, { after: lost })), { timeoutMs: 20_000 })
    expect(['no_primary', 'replica_lag', 'connection_failed']).toContain(found.code)
    await fleet.standbys[0]!.promote()
    await eventually(
      async () => {
        const { code } = await errorOf(trunkline.read(portOf, { after: lost }))
        expect(code).toBe('write_lost')
        return true
      },
      { timeoutMs: 20_000 },
    )
    expect(await trunkline.read(portOf)).toBe(fleet.standbys[0]!.postgres.port)
  })
})
