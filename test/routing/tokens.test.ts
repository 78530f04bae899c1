import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { errorOf, type Fleet, nameOf, portOf, route, type Routed, startFleet, untilServing } from './fleet.ts'

describeEachVersion('read your writes', (version) => {
  let fleet: Fleet
  let routed: Routed
  let trunkline: Trunkline
  let next = 0

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

  async function write(): Promise<{ id: number; token: string }> {
    const id = (next += 1)
    const { token } = await trunkline.write(async (tx) => tx.query('insert into item values ($1)', [id]), {
      withToken: true,
    })
    return { id, token: token! }
  }

  const has = async (id: number, options?: Parameters<Trunkline['read']>[1]): Promise<boolean> =>
    trunkline.read(async (tx) => (await tx.query('select from item where id = $1', [id])).rowCount === 1, options)

  const lastReason = (): string | undefined => routed.decisions.findLast(({ intent }) => intent === 'read')?.reason

  test('a token names the cluster, its timeline, and a position that is not before the commit', async () => {
    const { token } = await write()
    const [row] = await fleet.database.query<{ system: string; lsn: string }>(
      'select system_identifier::text as system, pg_current_wal_flush_lsn()::text as lsn from pg_control_system()',
    )
    expect(token).toMatch(new RegExp(`^${row!.system}:1:[0-9A-F]+/[0-9A-F]+$`))
    expect(token.length).toBeLessThan(40)
    await fleet.caughtUp()
    expect(await trunkline.read(portOf, { after: token })).not.toBe(fleet.primary.postgres.port)
  })

  test('replay is paused: without the token an old state, with it the fallback, never less than the write', async () => {
    for (const standby of fleet.standbys) await standby.pauseReplay()
    try {
      const { id, token } = await write()
      expect(await has(id)).toBe(false)
      expect(await has(id, { after: token })).toBe(true)
      expect(lastReason()).toBe('token-not-reached')
      for (const isolation of ['repeatable read', 'serializable'] as const) {
        expect(await has(id, { after: token, isolation })).toBe(true)
      }
    } finally {
      for (const standby of fleet.standbys) await standby.resumeReplay()
    }
  })

  test('one replica is behind: it is read from the other', async () => {
    const [paused, other] = fleet.standbys
    await paused!.pauseReplay()
    try {
      const { id, token } = await write()
      await other!.untilCaughtUp()
      for (let round = 0; round < 10; round += 1) {
        expect(await has(id, { after: token })).toBe(true)
        expect(await trunkline.read(portOf, { after: token })).toBe(other!.postgres.port)
      }
    } finally {
      await paused!.resumeReplay()
    }
  })

  test('replay goes on while a read waits: it is served by the replica, in repeatable read, too', async () => {
    await using patient = await route(fleet, { routing: { waitTimeoutMs: 20_000, fallback: 'error' } })
    for (const standby of fleet.standbys) await standby.pauseReplay()
    const { id, token } = await write()
    const reads = (['read committed', 'repeatable read'] as const).map(async (isolation) =>
      patient.trunkline.read(
        async (tx) => ({
          seen: (await tx.query('select from item where id = $1', [id])).rowCount,
          port: await portOf(tx),
        }),
        { after: token, isolation },
      ),
    )
    await eventually(() => patient.trunkline.routing.status().nodes.some(({ open }) => open > 0), {
      what: 'a read waits',
    })
    for (const standby of fleet.standbys) await standby.resumeReplay()
    for (const { seen, port } of await Promise.all(reads)) {
      expect(seen).toBe(1)
      expect(port).not.toBe(fleet.primary.postgres.port)
    }
    expect(patient.decisions.map(({ reason }) => reason)).toEqual(['token', 'token'])
    expect(patient.decisions[0]!.waitedMs).toBeGreaterThan(0)
  })

  test('fallback "error" and "stale" do what they say', async () => {
    const refusing = await route(fleet, { routing: { waitTimeoutMs: 20, fallback: 'error' } })
    const tolerant = await route(fleet, { routing: { waitTimeoutMs: 20, fallback: 'stale' } })
    for (const standby of fleet.standbys) await standby.pauseReplay()
    try {
      const { token } = await write()
      const error = await errorOf(refusing.trunkline.read(portOf, { after: token }))
      expect(error).toMatchObject({ name: 'ReplicaLagError', code: 'replica_lag', retryable: true })
      expect(refusing.decisions.at(-1)).toMatchObject({ target: 'none', reason: 'refused' })
      expect(await tolerant.trunkline.read(portOf, { after: token })).not.toBe(fleet.primary.postgres.port)
      expect(tolerant.decisions.at(-1)).toMatchObject({ target: 'replica', reason: 'stale' })
    } finally {
      for (const standby of fleet.standbys) await standby.resumeReplay()
      await refusing.trunkline.stop()
      await tolerant.trunkline.stop()
    }
  })

  test('a session carries it by itself, and to the next one by its token', async () => {
    await fleet.standbys[0]!.pauseReplay()
    await fleet.standbys[1]!.pauseReplay()
    try {
      const id = (next += 1)
      const token = await trunkline.routing.session(async (session) => {
        expect(session.token).toBeUndefined()
        await trunkline.write(async (tx) => tx.query('insert into item values ($1)', [id]))
        expect(await has(id)).toBe(true)
        return session.token
      })
      expect(await has(id)).toBe(false)
      expect(await trunkline.routing.session(async () => has(id), { token })).toBe(true)
      expect(await codeOf(trunkline.routing.session(async () => has(id), { token: 'made up' }))).toBe('invalid_token')
    } finally {
      for (const standby of fleet.standbys) await standby.resumeReplay()
    }
  })

  test('reads of a session never go back in time, whatever replica they meet', async () => {
    await fleet.caughtUp()
    const [behind] = fleet.standbys
    await behind!.pauseReplay()
    try {
      const { id } = await write()
      await fleet.standbys[1]!.untilCaughtUp()
      let seenOnce = 0
      for (let round = 0; round < 20; round += 1) {
        await trunkline.routing.session(async () => {
          let seen = false
          for (let read = 0; read < 5; read += 1) {
            const now = await has(id)
            // Once seen, always seen.
            if (seen) expect(now).toBe(true)
            seen ||= now
          }
          if (seen) seenOnce += 1
        })
      }
      expect(seenOnce).toBeGreaterThan(0)
    } finally {
      await behind!.resumeReplay()
    }
  })

  test('a commit that is not flushed yet (synchronous_commit = off) is covered by its token', async () => {
    for (let round = 0; round < 30; round += 1) {
      const id = (next += 1)
      const { token } = await trunkline.write(
        async (tx) => {
          await tx.query('set local synchronous_commit = off')
          await tx.query('insert into item values ($1)', [id])
        },
        { withToken: true },
      )
      expect(await has(id, { after: token })).toBe(true)
    }
  })

  test('a position at the very start of a page or segment can be reached by a replica', async () => {
    await using patient = await route(fleet, { routing: { waitTimeoutMs: 15_000, fallback: 'error' } })
    await fleet.database.adminQuery('select pg_switch_wal()')
    // Writes nothing: its token is the start of the segment, where no record ends yet.
    const { token } = await patient.trunkline.write(async (tx) => tx.query('select 1'), { withToken: true })
    const begun = performance.now()
    await patient.trunkline.read(async (tx) => tx.query('select 1'), { after: token })
    expect(performance.now() - begun).toBeLessThan(12_000)
  })

  test('a token of a newer timeline is never served by a primary of an older one', async () => {
    await using hasty = await route(fleet, { routing: { acquireTimeoutMs: 300 } })
    const { token } = await write()
    const [system, timeline, lsn] = token.split(':') as [string, string, string]
    const newer = `${system}:${Number(timeline) + 1}:${lsn}`
    const error = await errorOf(hasty.trunkline.read(portOf, { after: newer }))
    expect(error).toMatchObject({ name: 'ReplicaLagError', code: 'replica_lag', retryable: true })
  })

  test('a token of another cluster: the primary, whatever the fallback', async () => {
    await using refusing = await route(fleet, { routing: { fallback: 'error' } })
    const { token } = await write()
    const [, timeline, lsn] = token.split(':') as [string, string, string]
    const other = `1234567:${timeline}:${lsn}`
    expect(await refusing.trunkline.read(portOf, { after: other })).toBe(fleet.primary.postgres.port)
    expect(refusing.decisions.at(-1)).toMatchObject({ target: 'primary', reason: 'other-timeline' })
    // A session is healed by it: the next read goes to a replica again.
    await refusing.trunkline.routing.session(
      async () => {
        await refusing.trunkline.read(portOf)
        await fleet.caughtUp()
        await refusing.trunkline.read(portOf)
      },
      { token: `1234567:${timeline}:${lsn}` },
    )
    expect(refusing.decisions.slice(-2).map(({ target }) => target)).toEqual(['primary', 'replica'])
  })

  test('status tells lag in bytes and time while replay is paused; a level idle standby has none', async () => {
    await fleet.caughtUp()
    const name = nameOf(fleet.replicaUrls[0]!)
    const node = (): { lagBytes: number | undefined; lagMs: number | undefined } | undefined =>
      trunkline.routing.status().nodes.find((each) => each.name === name)
    await eventually(() => node()?.lagBytes === 0)
    await fleet.standbys[0]!.pauseReplay()
    await write()
    await eventually(() => (node()?.lagBytes ?? 0) > 0 && (node()?.lagMs ?? 0) > 100, { what: 'it lags' })
    await fleet.standbys[0]!.resumeReplay()
    await eventually(() => node()?.lagBytes === 0 && node()?.lagMs === 0, { what: 'it is level' })
    // Nothing is written: a replay time would grow now.
    const begun = performance.now()
    await eventually(() => performance.now() - begun > 300)
    expect(node()).toMatchObject({ lagBytes: 0, lagMs: 0 })
  })
})
