import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { expect, test } from 'vitest'
import { type Cache, createTrunkline, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import { createDatabase, describeEachPostgres, eventually, type TestDatabase } from '../support/index.ts'
import { install } from './captured.ts'

/** So long that nothing in here can be owed to the poll. */
const neverMs = 600_000

interface Reader extends AsyncDisposable {
  readonly trunkline: Trunkline
  readonly cache: Cache
}

async function read(database: TestDatabase, table: string, options: Partial<TrunklineOptions> = {}): Promise<Reader> {
  const trunkline = createTrunkline({ url: database.url, pollIntervalMs: neverMs, ...options })
  await trunkline.start()
  const cache = await trunkline.cache(table)
  return { trunkline, cache, [Symbol.asyncDispose]: () => trunkline.stop() }
}

/** Readers that hold the lock of somebody who sleeps. */
async function sleepers(database: TestDatabase): Promise<number> {
  const [row] = await database.query<{ n: number }>(
    `select count(*)::integer as n from pg_locks as l, trunkline.installation as i
      where l.locktype = 'advisory' and l.mode = 'ShareLock' and l.granted and l.classid = i.lock_class::oid
        and l.database = (select oid from pg_database where datname = current_database())`,
  )
  return row?.n ?? 0
}

async function untilAsleep(database: TestDatabase): Promise<void> {
  await eventually(async () => (await sleepers(database)) > 0, { what: 'the reader sleeps' })
}

/** Counts what comes over the channel. */
async function listenTo(database: TestDatabase): Promise<{ count: () => Promise<number>; reset: () => Promise<void> }> {
  const client = await database.connect()
  let count = 0
  let marks = 0
  client.on('notification', ({ payload }) => {
    if (payload === '') count += 1
    else if (payload?.startsWith('mark') === true) marks += 1
  })
  const [row] = await database.query<{ channel: string }>('select channel from trunkline.installation')
  await client.query(`listen ${row?.channel}`)
  // Notifications come in the order of commits: what was sent before the mark is here when the mark is.
  const settle = async (): Promise<void> => {
    const before = marks
    await database.query(`select pg_notify($1, $2)`, [row?.channel, `mark ${before}`])
    await eventually(() => marks > before, { what: 'the mark arrives' })
  }
  return {
    count: async () => {
      await settle()
      return count
    },
    reset: async () => {
      await settle()
      count = 0
    },
  }
}

async function withClients(
  database: TestDatabase,
  count: number,
  work: (client: pg.Client, index: number) => Promise<void>,
): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const client = await database.connect()
      await work(client, index)
      await client.end()
    }),
  )
}

describeEachPostgres('the wake-up', (server) => {
  async function prepare(...tables: string[]): Promise<TestDatabase> {
    const database = await createDatabase(server)
    await install(database.url)
    for (const table of tables) {
      await database.query(`create table ${table} (id bigserial primary key, note text)`)
      await database.query('select trunkline.capture($1)', [table])
    }
    return database
  }

  test('out of sleep: every single commit arrives, with no poll to help', async () => {
    await using database = await prepare('item')
    await using reader = await read(database, 'item')
    for (let n = 1; n <= 60; n += 1) {
      // Asleep, and while it falls asleep or wakes up.
      if (n % 3 === 0) await untilAsleep(database)
      else await delay(n % 17)
      await database.query('insert into item (note) values ($1)', [`${n}`])
      await eventually(() => reader.cache.size === n, { what: `commit ${n} arrives`, intervalMs: 1 })
    }
    expect(reader.trunkline.mode).toBe('listen')
  })

  test.each([8, 24])(
    '%i writers at their own pace: whoever commits sees it arrive, with no poll to help',
    { timeout: 60_000 },
    async (writers) => {
      await using database = await prepare('item')
      await using reader = await read(database, 'item')
      const arrived = new Map<string, () => void>()
      reader.cache.on('change', ({ new: row }) => arrived.get(String(row?.['id']))?.())
      await withClients(database, writers, async (client, index) => {
        for (let n = 0; n < 40; n += 1) {
          await client.query('begin')
          const { rows } = await client.query<{ id: string }>('insert into item (note) values ($1) returning id', [
            `${index}`,
          ])
          const id = rows[0]?.id ?? ''
          const arrival = Promise.withResolvers<boolean>()
          arrived.set(id, () => arrival.resolve(true))
          // Some stay open, so that the reader falls asleep beside them.
          if (n % 4 === 0) await delay((index * 7 + n) % 40)
          if (n % 5 === 1) {
            await client.query('rollback')
            continue
          }
          await client.query('commit')
          const isThere = await Promise.race([arrival.promise, delay(10_000, false)])
          if (!isThere) expect.fail(`row ${id} of writer ${index} did not arrive within 10 s`)
          await delay((index * 13 + n * 5) % 30)
        }
      })
      const [row] = await database.query<{ n: number }>('select count(*)::integer as n from item')
      expect(reader.cache.size).toBe(row?.n)
    },
  )

  test('under load nearly nobody notifies, and nothing is missed', { timeout: 60_000 }, async () => {
    await using database = await prepare('item')
    await using reader = await read(database, 'item')
    const notifications = await listenTo(database)
    await untilAsleep(database)
    await withClients(database, 16, async (client) => {
      for (let n = 0; n < 125; n += 1) await client.query("insert into item (note) values ('x')")
    })
    await eventually(() => reader.cache.size === 2_000, { what: 'all commits arrive' })
    const count = await notifications.count()
    expect(count).toBeGreaterThan(0)
    expect(count).toBeLessThan(400)
  })

  test('nobody sleeps: nobody notifies', async () => {
    await using database = await prepare('item')
    const notifications = await listenTo(database)
    for (let n = 0; n < 20; n += 1) await database.query("insert into item (note) values ('x')")
    expect(await notifications.count()).toBe(0)
    await using polling = await read(database, 'item', { listenUrl: false, pollIntervalMs: 30 })
    await database.query("insert into item (note) values ('x')")
    await eventually(() => polling.cache.size === 21)
    expect([await notifications.count(), await sleepers(database)]).toEqual([0, 0])
  })

  test("'always' notifies in every transaction, 'off' in none; rollbacks and writes of no row never", async () => {
    await using database = await prepare('item')
    const notifications = await listenTo(database)
    await database.query("select trunkline.set_wake('always')")
    for (let n = 0; n < 20; n += 1) await database.query("insert into item (note) values ('x')")
    await database.query(
      'begin; insert into item (note) values (1); update item set note = 2; delete from item where id = 1; commit',
    )
    expect(await notifications.count()).toBe(21)
    await database.query('begin; insert into item (note) values (1); rollback')
    await database.query('update item set note = note where id < 0')
    expect(await notifications.count()).toBe(21)
    await database.query("select trunkline.set_wake('off')")
    await notifications.reset()
    await using reader = await read(database, 'item', { pollIntervalMs: 30 })
    for (let n = 0; n < 20; n += 1) await database.query("insert into item (note) values ('x')")
    await eventually(() => reader.cache.size === 40, { what: 'the poll finds them' })
    expect([await notifications.count(), await sleepers(database)]).toEqual([0, 0])
  })

  test('the setting of a table comes before that of the installation', async () => {
    await using database = await prepare('item', 'other')
    await database.query("select trunkline.capture('item', wake => 'always')")
    await database.query("select trunkline.set_wake('off')")
    const notifications = await listenTo(database)
    await database.query("insert into other (note) values ('x')")
    expect(await notifications.count()).toBe(0)
    await database.query("insert into item (note) values ('x')")
    expect(await notifications.count()).toBe(1)
  })

  test('a busy table does not wake the reader of a quiet one, nor notify because of it', async () => {
    await using database = await prepare('quiet', 'busy')
    await using reader = await read(database, 'quiet')
    const notifications = await listenTo(database)
    await untilAsleep(database)
    await withClients(database, 4, async (client) => {
      for (let n = 0; n < 50; n += 1) await client.query("insert into busy (note) values ('x')")
    })
    // Two writers that look at the same moment may take each other for a sleeper: seldom, and it does no harm.
    expect(await notifications.count()).toBeLessThan(4)
    await notifications.reset()
    await untilAsleep(database)
    await database.query("insert into quiet (note) values ('x')")
    await eventually(() => reader.cache.size === 1, { what: 'the quiet commit arrives' })
    expect(await notifications.count()).toBe(1)
  })

  test('two caches in one process sleep on both tables', async () => {
    await using database = await prepare('one', 'two')
    await using reader = await read(database, 'one')
    const second = await reader.trunkline.cache('two')
    for (let n = 1; n <= 10; n += 1) {
      await eventually(async () => (await sleepers(database)) === 2, { what: 'the reader sleeps on both' })
      await database.query(`insert into ${n % 2 === 0 ? 'one' : 'two'} (note) values ('x')`)
      await eventually(() => reader.cache.size + second.size === n, { what: `commit ${n} arrives` })
    }
    await second.stop()
    await eventually(async () => (await sleepers(database)) === 1, {
      what: 'the reader sleeps on the one that is left',
    })
  })

  test('captured anew: sleeping readers hear of it', async () => {
    await using database = await prepare('item')
    await database.query("insert into item (note) values ('x')")
    await using reader = await read(database, 'item')
    await untilAsleep(database)
    await database.query(
      "alter table item disable trigger all; insert into item (note) values ('unseen'); alter table item enable trigger all",
    )
    expect(reader.cache.size).toBe(1)
    await database.query("select trunkline.capture('item', 'keys')")
    await eventually(() => reader.cache.size === 2, { what: 'the fresh copy is made' })
    await untilAsleep(database)
    await database.query("insert into item (note) values ('x')")
    await eventually(() => reader.cache.size === 3, { what: 'and followed' })
  })

  test('a writer that wrote before the reader slept, and commits long after: it arrives, at little cost', async () => {
    await using database = await prepare('item')
    const writer = await database.connect()
    await writer.query("begin; insert into item (note) values ('early')")
    const notifications = await listenTo(database)
    await using reader = await read(database, 'item')
    await untilAsleep(database)
    const commits = async (): Promise<number> => {
      const [row] = await database.adminQuery<{ n: string }>(
        'select xact_commit::text as n from pg_stat_database where datname = current_database()',
      )
      return Number(row?.n)
    }
    const before = await commits()
    const begun = performance.now()
    await eventually(() => performance.now() - begun > 2_000, { intervalMs: 100 })
    // It looks for that writer with growing pauses, half a second at most.
    expect((await commits()) - before).toBeLessThan(60)
    // Meanwhile others are heard at once.
    await database.query("insert into item (note) values ('late')")
    await eventually(() => reader.cache.size === 1, { what: 'the other commit arrives', timeoutMs: 2_000 })
    const told = await notifications.count()
    expect(told).toBe(1)
    await writer.query('commit')
    await eventually(() => reader.cache.size === 2, { what: 'the early one arrives', timeoutMs: 3_000 })
    expect(await notifications.count()).toBe(told)
  })

  test('a prepared transaction: told by nobody, and yet it arrives', async () => {
    await using database = await prepare('item', 'silent')
    await database.query("select trunkline.capture('silent', wake => 'off')")
    // Nobody slept when it wrote, so it could be prepared.
    await database.query(`begin; insert into item (note) values ('x'); prepare transaction 'early ${database.name}'`)
    await using reader = await read(database, 'item')
    await using polling = await read(database, 'silent', { pollIntervalMs: 30 })
    await untilAsleep(database)
    expect(reader.cache.size).toBe(0)
    await database.query(`commit prepared 'early ${database.name}'`)
    await eventually(() => reader.cache.size === 1, { what: 'it arrives', timeoutMs: 5_000 })
    for (const [n, end] of [
      [1, 'commit'],
      [1, 'rollback'],
      [2, 'commit'],
    ] as const) {
      await database.query(
        `begin; insert into silent (note) values ('x'); prepare transaction 'silent ${database.name}'`,
      )
      await polling.cache.fresh()
      expect(polling.cache.size).toBe(end === 'commit' ? n - 1 : n)
      await database.query(`${end} prepared 'silent ${database.name}'`)
      if (end === 'commit') await eventually(() => polling.cache.size === n, { what: 'the poll finds it' })
      else await polling.cache.fresh()
      expect(polling.cache.size).toBe(n)
    }
  })

  test('many readers asleep: one notification wakes them all', async () => {
    await using database = await prepare('item')
    const readers = await Promise.all(Array.from({ length: 8 }, () => read(database, 'item')))
    const notifications = await listenTo(database)
    await eventually(async () => (await sleepers(database)) === 8, { what: 'all sleep' })
    await database.query("insert into item (note) values ('x')")
    await eventually(() => readers.every(({ cache }) => cache.size === 1), { what: 'all have it' })
    expect(await notifications.count()).toBe(1)
    await Promise.all(readers.map((reader) => reader[Symbol.asyncDispose]()))
    await eventually(async () => (await sleepers(database)) === 0, { what: 'no lock is left' })
  })
})
