import { describe, expect, test } from 'vitest'
import { codeOf } from '../cache/cached.ts'
import {
  describeEachVersion,
  eventually,
  lacksPgBouncer,
  type PgBouncer,
  startPgBouncer,
  type TestDatabase,
} from '../support/index.ts'
import { type Fleet, nameOf, portOf, route, startFleet, stateOf, untilServing, withClient } from './fleet.ts'

const insert = 'insert into item values ($1)'
const select = 'select id from item order by id'

/** A pooler in transaction mode in front of the primary, and one in front of each standby. */
async function startPoolers(fleet: Fleet): Promise<{ urls: string[] } & AsyncDisposable> {
  const poolers: PgBouncer[] = []
  for (const url of [fleet.database.url, ...fleet.directUrls]) {
    const database: TestDatabase = { ...fleet.database, url, server: { ...fleet.database.server, url } }
    poolers.push(await startPgBouncer(database, { poolSize: 3 }))
  }
  return {
    urls: poolers.map(({ url }) => url),
    async [Symbol.asyncDispose]() {
      await Promise.all(poolers.map(async (pooler) => pooler.stop()))
    },
  }
}

describe.skipIf(lacksPgBouncer())('PgBouncer', () => {
  describeEachVersion('in transaction mode, before each server', (version) => {
    test('transactions with their options, tokens and sessions, more of them than the pooler has connections', async () => {
      await using fleet = await startFleet(version, 1)
      await using poolers = await startPoolers(fleet)
      const [url, replicaUrl] = poolers.urls as [string, string]
      await using routed = await route(fleet, { url, replicaUrls: [replicaUrl] })
      const { trunkline } = routed
      await untilServing(trunkline, 1)
      const replicaPort = fleet.standbys[0]!.postgres.port
      expect(await trunkline.read(portOf)).toBe(replicaPort)
      const settings = await trunkline.read(
        async (tx) =>
          (
            await tx.query(
              `select current_setting('application_name') as label, current_setting('transaction_isolation') as isolation,
                 current_setting('statement_timeout') as timeout, $1::integer as one`,
              [1],
            )
          ).rows[0] as unknown,
        { label: 'mine', isolation: 'repeatable read', statementTimeoutMs: 4_321 },
      )
      expect(settings).toEqual({ label: 'mine', isolation: 'repeatable read', timeout: '4321ms', one: 1 })
      await Promise.all(
        Array.from({ length: 40 }, async (_, id) => {
          const { token } = await trunkline.write(async (tx) => tx.query(insert, [id]), { withToken: true })
          const { rows } = await trunkline.read(async (tx) => tx.query('select from item where id = $1', [id]), {
            after: token,
          })
          expect(rows).toHaveLength(1)
          await trunkline.routing.session(async () => {
            await trunkline.write(async (tx) => tx.query('update item set note = $2 where id = $1', [id, 'seen']))
            const seen = await trunkline.read(async (tx) => tx.query('select note from item where id = $1', [id]))
            expect(seen.rows).toEqual([{ note: 'seen' }])
          })
        }),
      )
      // Paused: the token is not reached, whichever of the pooler's connections is asked.
      await fleet.standbys[0]!.pauseReplay()
      const { token } = await trunkline.write(async (tx) => tx.query(insert, [100]), { withToken: true })
      for (let count = 0; count < 5; count += 1) {
        const { rows } = await trunkline.read(async (tx) => tx.query('select from item where id = 100'), {
          after: token,
        })
        expect(rows).toHaveLength(1)
      }
      await fleet.standbys[0]!.resumeReplay()
      expect(await codeOf(trunkline.read(async (tx) => tx.query(insert, [101])))).toBe('read_only_transaction')
      // A time-out leaves no lock behind, and no open transaction for others.
      const slow = trunkline.write(
        async (tx) => {
          await tx.query('lock table item')
          await tx.query('select pg_sleep(30)')
        },
        { timeoutMs: 300 },
      )
      expect(await codeOf(slow)).toBe('timed_out')
      await trunkline.write(async (tx) => tx.query(insert, [102]), { timeoutMs: 20_000 })
    })

    test('a promotion behind it is seen, and written to', { timeout: 90_000 }, async () => {
      await using fleet = await startFleet(version, 2)
      await using poolers = await startPoolers(fleet)
      const [url, ...replicaUrls] = poolers.urls as [string, string, string]
      await using routed = await route(fleet, { url, replicaUrls })
      const { trunkline } = routed
      await untilServing(trunkline, 2)
      // Connections of the pooler that began while the server was a standby.
      for (let count = 0; count < 20; count += 1) await trunkline.read(portOf)
      const before = await trunkline.write(async (tx) => tx.query(insert, [1]), { withToken: true })
      await fleet.caughtUp()
      await fleet.primary.postgres.stop('immediate')
      await fleet.standbys[0]!.promote()
      const promoted = fleet.standbys[0]!.postgres.port
      await eventually(() => trunkline.routing.status().primary === nameOf(replicaUrls[0]), {
        what: 'the promotion is seen',
        timeoutMs: 20_000,
      })
      const after = await trunkline.write(
        async (tx) => {
          await tx.query(insert, [2])
          return portOf(tx)
        },
        { withToken: true },
      )
      expect(after.result).toBe(promoted)
      expect(after.token).toMatch(/:2:/)
      for (const token of [before.token, after.token, undefined]) {
        const read = trunkline.read(async (tx) => ({ at: await portOf(tx), rows: (await tx.query(select)).rows }), {
          after: token,
        })
        expect(await read).toEqual({ at: promoted, rows: [{ id: 1 }, { id: 2 }] })
      }
      expect(stateOf(trunkline, nameOf(replicaUrls[1]))).toBe('other-timeline')
      await withClient(fleet.directUrls[1]!, async (left) => {
        expect((await left.query(select)).rows).toEqual([{ id: 1 }])
      })
    })
  })
})
