import { expect, test } from 'vitest'
import { install } from '../log/captured.ts'
import {
  createDatabase,
  describeEachPostgres,
  describeEachVersion,
  eventually,
  ownCluster,
  type TestDatabase,
} from '../support/index.ts'
import { emitAll, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

/** Rows of a table of trunkline that were added, and versions that were left behind, by the server's own count. */
async function countsOf(database: TestDatabase, tables: string): Promise<{ added: number; left: number }> {
  const [row] = await database.query<{ added: number; left: number }>(
    `select sum(pg_stat_get_tuples_inserted(c.oid))::integer as added,
       sum(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid))::integer as left
     from pg_class as c where c.relname like $1 and c.relnamespace = 'trunkline'::regnamespace and c.relkind = 'r'`,
    [tables],
  )
  return row!
}

const keys = Array.from({ length: 16 }, (_, n) => `k${n}`)

// The horizon is the whole server's.
describeEachVersion('relay: checkpoints while a transaction stays open', (version) => {
  test(
    'no dead row on the hot path, however long somebody holds the horizon: neither in the log nor by saving places',
    { timeout: 120_000 },
    async () => {
      await using cluster = await ownCluster(version)
      await using database = await createDatabase(cluster.server)
      await install(database.url)
      const idle = await database.connect()
      await idle.query('begin isolation level repeatable read; select 1; select txid_current()')
      const sink = new RecordingSink({ batchSizeMax: 100 })
      const relay = open(database.url).relay(quick({ sink, topics: ['order'], checkpointIntervalMs: 1 }))
      await relay.start()
      const rounds = 20
      for (let n = 1; n <= rounds; n += 1) {
        await emitAll(
          database,
          keys.map((key) => [key, n] as const),
        )
        await eventually(() => sink.confirmed.length === n * keys.length, {
          what: `round ${n} is delivered`,
          timeoutMs: 30_000,
        })
      }
      await relay.drained()
      await relay.stop()
      // Statistics are sent when a session is idle, and its connections have ended by now.
      await eventually(async () => (await countsOf(database, 'relay\\_checkpoint\\__')).added > rounds * 4, {
        what: 'the server has counted the saves',
        timeoutMs: 30_000,
      })
      expect((await countsOf(database, 'log\\__')).left).toBe(0)
      expect((await countsOf(database, 'relay\\_checkpoint%')).left).toBe(0)
      expect((await countsOf(database, 'failed\\_delivery')).left).toBe(0)
      // Taken once and given back once each; a save changes none of them.
      expect((await countsOf(database, 'relay\\_slot')).left).toBeLessThanOrEqual(32)
      await idle.query('rollback')
    },
  )
})

describeEachPostgres('relay: checkpoints', (server) => {
  test(
    'places stay few: one child after the other is emptied, and no place is lost by it',
    { timeout: 120_000 },
    async () => {
      const database = await prepareDatabase(server)
      await database.query("update trunkline.relay_turn set rows_max = 40, pause = '0'")
      const turns = new Set<unknown>()
      const sink = new RecordingSink({ batchSizeMax: 100 })
      const relay = open(database.url).relay(quick({ sink, topics: ['order'], checkpointIntervalMs: 1, leaseMs: 500 }))
      await relay.start()
      // Without load a turn is a matter of heartbeats; several sessions that do nothing else race them here.
      const over = new AbortController()
      const turning = Promise.all(
        [1, 2].map(async () => {
          const client = await database.connect()
          while (!over.signal.aborted) await client.query('select trunkline.relay_turn()')
        }),
      )
      let written = 0
      await eventually(
        async () => {
          written += 1
          await emitAll(
            database,
            keys.map((key) => [key, written] as const),
          )
          const [turn] = await database.query<{ first_id: string }>('select first_id from trunkline.relay_turn')
          turns.add(turn?.first_id)
          return turns.size > 5
        },
        { what: 'five turns', timeoutMs: 60_000, intervalMs: 1 },
      )
      await relay.drained()
      await relay.stop()
      over.abort()
      await turning
      const places = await database.query('select slot, position from trunkline.relay_place order by slot')
      expect(places).toHaveLength(16)
      for (let step = 0; step < 4; step += 1) await database.query('select trunkline.relay_turn()')
      expect(await database.query('select slot, position from trunkline.relay_place order by slot')).toEqual(places)
      const [stored] = await database.query<{ n: number }>(
        'select count(*)::integer as n from trunkline.relay_checkpoint',
      )
      expect(stored!.n).toBeLessThan(40 * 5)

      const again = open(database.url).relay(quick({ sink, topics: ['order'] }))
      await again.start()
      await again.drained()
      for (const key of keys) expect(sink.of(key)).toEqual(Array.from({ length: written }, (_, n) => n + 1))
    },
  )
})
