import type pg from 'pg'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type NewEvent } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { createDatabase, describeEachPostgres } from '../support/index.ts'

/** What a connection has read of the table of events, since its statistics were last sent. */
async function readBy(client: pg.Client): Promise<{ scans: number; fetched: number }> {
  const { rows } = await client.query<{ scans: string; fetched: string }>(
    `select coalesce(sum(s.seq_scan), 0) as scans, coalesce(sum(s.idx_tup_fetch), 0) as fetched
     from pg_stat_xact_user_tables as s where s.schemaname = 'trunkline' and s.relname = 'event'`,
  )
  return { scans: Number(rows[0]?.scans), fetched: Number(rows[0]?.fetched) }
}

const batch = (stream: string, count: number, type = 'a'): NewEvent[] =>
  Array.from({ length: count }, (_, n) => ({ type, payload: { stream, n } }))

describeEachPostgres('plans that were made while the table of events was empty', (server) => {
  let client: pg.Client
  let trunkline: ReturnType<typeof createTrunkline>

  beforeEach(async () => {
    const database = await createDatabase(server)
    await install(database.url)
    client = await database.connect('owner')
    trunkline = createTrunkline({ url: database.url })
    onTestFinished(async () => {
      await trunkline.stop()
      await database.drop()
    })
    // Nothing may replan them meanwhile.
    await client.query('alter table trunkline.event set (autovacuum_enabled = off)')
    await client.query('begin')
  })

  test('an append never reads the whole table', async () => {
    for (let n = 0; n < 20; n += 1) {
      await trunkline.events.append(`batch-${n}`, n % 2 === 0 ? 'any' : 'no-stream', batch(`${n}`, 100), { tx: client })
      await trunkline.events.append('one-1', n, batch('one', 1), { tx: client })
    }
    const repeated = batch('again', 100).map((event, n) =>
      Object.assign(event, { id: `018f3a4c-0000-7000-8000-${n + 1e11}` }),
    )
    for (let n = 0; n < 10; n += 1) await trunkline.events.append('again-1', 'any', repeated, { tx: client })
    const { scans, fetched } = await readBy(client)
    expect(scans).toBe(0)
    // 22 batches look up their ids, ten times those of the repeated one: less than once around for each append.
    expect(fetched).toBeLessThan(6_000)
  })

  test('a page of some types looks at no more events than it needs', async () => {
    for (let n = 0; n < 30; n += 1)
      await trunkline.events.append('much-1', 'any', batch('much', 100, n < 29 ? 'a' : 'b'), { tx: client })
    await client.query('commit')
    const page = async (
      types: readonly string[],
      after = 0,
    ): Promise<{ events: number; upTo: number; fetched: number }> => {
      await client.query('begin')
      const { rows } = await client.query<{ events: string | null; up_to: string }>(
        'select events, up_to from trunkline.event_page($1, 0, $2, null, 20000, 1000000, 10)',
        [after, types],
      )
      const { fetched } = await readBy(client)
      await client.query('commit')
      const events = JSON.parse(rows[0]?.events ?? '[[]]') as [string[]]
      return { events: events[0].length, upTo: Number(rows[0]?.up_to), fetched }
    }
    expect(await page(['a'])).toMatchObject({ events: 10, upTo: 10 })
    expect((await page(['a'], 10)).fetched).toBeLessThan(1_000)
    expect(await page(['b'])).toMatchObject({ events: 10, upTo: 2_910 })
    expect(await page(['b'], 2_990)).toMatchObject({ events: 10, upTo: 3_000 })
    expect(await page(['b'], 3_000)).toMatchObject({ events: 0, upTo: 3_000 })
    expect(await page(['c'])).toMatchObject({ events: 0, upTo: 3_000 })
  })
})
