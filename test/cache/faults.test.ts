import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cache, createTrunkline, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import {
  createDatabase,
  createStandby,
  describeEachVersion,
  eventually,
  findBackends,
  lacksPgBouncer,
  type OwnCluster,
  ownCluster,
  startPgBouncer,
  startTcpProxy,
  terminateBackends,
  type TestDatabase,
  untilBackends,
} from '../support/index.ts'
import {
  type AnyRow,
  codeOf,
  EventReplica,
  expectEqualToSelect,
  recordingLogger,
  type RecordingLogger,
} from './cached.ts'

interface Running extends AsyncDisposable {
  readonly trunkline: Trunkline
  readonly logger: RecordingLogger
}

/** A writer that goes on whatever happens to its connection, and knows what it was told to have committed. */
class Writer implements AsyncDisposable {
  readonly #database: TestDatabase
  #isOver = false
  #loop: Promise<void>
  /** Highest number that is known to be committed. */
  committed = 0

  constructor(database: TestDatabase) {
    this.#database = database
    this.#loop = this.#run()
  }

  /** Resolves when it has committed this many more. */
  async untilMore(count: number): Promise<void> {
    const goal = this.committed + count
    await eventually(() => this.committed >= goal, { what: `${count} more commits`, timeoutMs: 20_000 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    await this.#loop
  }

  async #run(): Promise<void> {
    for (let n = 1; !this.#isOver; n += 1) {
      try {
        await this.#database.query('select count_up($1)', [n])
        this.committed = n
      } catch {
        await eventually(async () => this.#isOver || (await this.#database.query('select')), {
          timeoutMs: 30_000,
        }).catch(() => undefined)
      }
    }
  }
}

const backendsOf = (name: string): { where: string } => ({ where: `application_name = '${name}'` })
const ours = { where: "application_name like 'trunkline%'" }

/** The two caches, and a list of the moments at which they did not fit. */
async function openBoth(
  trunkline: Trunkline,
): Promise<{ counter: Cache<AnyRow>; journal: Cache<AnyRow>; torn: string[] }> {
  const counter = await trunkline.cache<AnyRow>('counter')
  const journal = await trunkline.cache<AnyRow>('journal')
  const torn: string[] = []
  const look = (): void => {
    const highest = Math.max(0, ...Array.from(counter, (row) => Number(row['n'])))
    const last = Math.max(0, ...Array.from(journal, (row) => Number(row['n'])))
    if (highest !== last) torn.push(`counter has ${highest}, journal ${last}`)
  }
  counter.on('changes', look)
  journal.on('changes', look)
  return { counter, journal, torn }
}

describeEachVersion('caches when things break', (version) => {
  let cluster: OwnCluster
  let database: TestDatabase

  beforeAll(async () => {
    cluster = await ownCluster(version)
  })
  afterAll(() => cluster.dispose())

  /** A database of the cluster with two tables that a function writes together, and a third that nobody writes. */
  async function prepare(on: OwnCluster = cluster): Promise<TestDatabase> {
    const made = await createDatabase(on.server)
    await install(made.url)
    await made.query('create table counter (id integer primary key, n integer)')
    await made.query('create table journal (n integer)')
    await made.query('create table still (id integer primary key, name text)')
    await made.query('insert into counter select id, 0 from generate_series(1, 5) as id')
    await made.query("insert into still values (1, 'a')")
    await made.query(`create function count_up(number integer) returns void language sql as
      'update counter set n = $1 where id = 1 + $1 % 5; insert into journal values ($1)'`)
    for (const table of ['counter', 'journal', 'still']) await made.query('select trunkline.capture($1)', [table])
    return made
  }

  beforeAll(async () => {
    database = await prepare()
  })
  afterAll(() => database.drop())

  async function start(options: Partial<TrunklineOptions> = {}): Promise<Running> {
    const logger = recordingLogger()
    const trunkline = createTrunkline({ url: database.url, logger, ...options })
    await trunkline.start()
    return { trunkline, logger, [Symbol.asyncDispose]: () => trunkline.stop() }
  }

  async function expectLevel(...caches: readonly Cache<AnyRow>[]): Promise<void> {
    for (const cache of caches) {
      await cache.fresh({ timeoutMs: 20_000 })
      await expectEqualToSelect(cache, database, `select * from ${cache.table}`)
      expect(cache.status).toBe('live')
    }
  }

  async function empty(): Promise<void> {
    await database.query('truncate journal; update counter set n = 0')
  }

  test.each(['trunkline listen', 'trunkline read', 'trunkline'] as const)(
    'the backend of "%s" is terminated under load, again and again',
    async (name) => {
      await empty()
      await using running = await start({ pollIntervalMs: 600_000 })
      const { counter, journal, torn } = await openBoth(running.trunkline)
      const replica = new EventReplica(journal)
      {
        await using writer = new Writer(database)
        for (let round = 0; round < 5; round += 1) {
          await writer.untilMore(20)
          if (name !== 'trunkline') await untilBackends(database, backendsOf(name))
          await terminateBackends(database, backendsOf(name))
          const seen = writer.committed
          await eventually(() => journal.size >= seen, { what: `the cache goes on after round ${round}` })
        }
      }
      await expectLevel(counter, journal)
      replica.expectEqualTo(journal)
      expect(torn).toEqual([])
      await untilBackends(database, backendsOf('trunkline listen'))
      await eventually(() => running.trunkline.mode === 'listen', { what: 'notifications arrive again' })
      // Without a poll: only a notification can tell of it.
      await database.query('select count_up(1000000)')
      await eventually(() => Array.from(journal).some((row) => row['n'] === 1_000_000))
    },
  )

  test.each(['the server', 'one backend'])(
    'a crash of %s takes back a commit that was seen: the cache has what is left',
    { timeout: 60_000 },
    async (crashed) => {
      // Nothing reaches the disk but what somebody waits for.
      await using lazy = await ownCluster(version, {
        synchronous_commit: 'off',
        wal_writer_delay: '10s',
        autovacuum: 'off',
      })
      const db = await prepare(lazy)
      await using trunkline = createTrunkline({ url: db.url })
      await trunkline.start()
      const counter = await trunkline.cache<AnyRow>('counter')
      const journal = await trunkline.cache<AnyRow>('journal')
      await db.adminQuery('checkpoint')
      await db.query('select count_up(77)')
      await eventually(() => journal.size === 1, { what: 'the caches have the commit' })
      if (crashed === 'the server') {
        await lazy.postgres.stop('immediate')
        await lazy.postgres.start()
      } else {
        const victim = await db.connect()
        victim.on('error', () => undefined)
        const { rows } = await victim.query<{ pid: number }>('select pg_backend_pid() as pid')
        process.kill(rows[0]?.pid ?? 0, 'SIGKILL')
      }
      await eventually(
        async () => {
          const left = await db.query<{ count: string }>('select count(*) from journal').catch(() => [])
          return left[0]?.count === '0'
        },
        { what: 'the table has lost it' },
      )
      await eventually(() => journal.size === 0, { what: 'the cache has lost what the table has lost' })
      for (const cache of [counter, journal]) await expectEqualToSelect(cache, db, `select * from ${cache.table}`)
    },
  )

  test('the server crashes and comes back, under load', { timeout: 60_000 }, async () => {
    await empty()
    await using running = await start()
    const { counter, journal, torn } = await openBoth(running.trunkline)
    {
      await using writer = new Writer(database)
      for (let round = 0; round < 2; round += 1) {
        await writer.untilMore(20)
        await cluster.postgres.stop('immediate')
        const size = journal.size
        expect(Array.from(journal)).toHaveLength(size)
        await cluster.postgres.start()
        await writer.untilMore(20)
      }
    }
    await expectLevel(counter, journal)
    expect(torn).toEqual([])
    expect(running.logger.of('error')).toEqual([])
  })

  test.each(['cut', 'stall'] as const)(
    'the network is gone (%s): stale with its age, reads go on, then live and level',
    { timeout: 60_000 },
    async (fault) => {
      await empty()
      await using proxy = await startTcpProxy(database.url)
      await using running = await start({ url: proxy.url, staleAfterMs: 1_000, pollIntervalMs: 100 })
      const { counter, journal, torn } = await openBoth(running.trunkline)
      const told: string[] = []
      let age = 0
      journal.on('stale', ({ ageMs, cause }) => {
        age = ageMs
        told.push(`stale: ${cause instanceof Error}`)
      })
      journal.on('live', () => told.push('live'))
      await database.query('select count_up(1)')
      await journal.fresh()
      expect(told).toEqual([])
      if (fault === 'cut') await proxy.cut()
      else proxy.stall()
      await database.query('select count_up(2)')
      await eventually(() => told.length > 0, { what: 'it says that it is stale' })
      expect(age).toBeGreaterThanOrEqual(1_000)
      expect(journal.status).toBe('stale')
      expect(journal.ageMs).toBeGreaterThanOrEqual(age - 1)
      expect(Array.from(journal)).toEqual([{ n: 1 }])
      expect(await codeOf(journal.fresh({ timeoutMs: 50 }))).toBe('not_fresh')
      await proxy.resume()
      await eventually(() => journal.status === 'live', { what: 'it is live again', timeoutMs: 30_000 })
      await expectLevel(counter, journal)
      expect(told).toEqual(['stale: true', 'live'])
      expect(journal.ageMs).toBeLessThan(5_000)
      expect(torn).toEqual([])
    },
  )

  test.each(['reset', 'stall'] as const)(
    'the network is gone (%s) during a first copy: told in time, and nobody dies of it',
    { timeout: 60_000 },
    async (fault) => {
      await using proxy = await startTcpProxy(database.url)
      await using running = await start({ url: proxy.url })
      const holder = await database.connect()
      await holder.query('begin; lock table still in access exclusive mode')
      const first = codeOf(running.trunkline.cache('still'))
      await untilBackends(database, { where: "application_name = 'trunkline' and wait_event_type = 'Lock'" })
      if (fault === 'reset') proxy.reset()
      else proxy.stall()
      expect(await first).toBe('connection_failed')
      await proxy.resume()
      await holder.end()
      await expectLevel(await running.trunkline.cache<AnyRow>('still'))
    },
  )

  test('stop while the network is gone ends soon, and leaves no connection behind', { timeout: 60_000 }, async () => {
    await untilBackends(database, ours, (count) => count === 0)
    for (const fault of ['cut', 'stall'] as const) {
      await using proxy = await startTcpProxy(database.url)
      const running = await start({ url: proxy.url })
      await openBoth(running.trunkline)
      if (fault === 'cut') await proxy.cut()
      else proxy.stall()
      await database.query('select count_up(1)')
      const before = performance.now()
      await running.trunkline.stop()
      expect(performance.now() - before).toBeLessThan(8_000)
      await proxy.resume()
      await untilBackends(database, ours, (count) => count === 0)
    }
    // Stopped while it reconnects.
    for (let round = 0; round < 5; round += 1) {
      const running = await start()
      await running.trunkline.cache('still')
      await terminateBackends(database, ours)
      await running.trunkline.stop()
    }
    await untilBackends(database, ours, (count) => count === 0)
  })

  test('a transaction held open for long, here and in another database, that writes or not: nobody waits', async () => {
    await empty()
    const elsewhere = await createDatabase(cluster.server)
    await elsewhere.query('create table other (id integer)')
    const holders = await Promise.all([database.connect(), database.connect(), elsewhere.connect()])
    await holders[0].query('begin; insert into journal values (-1)')
    await holders[1].query('begin; create table not_captured (id integer); insert into not_captured values (1)')
    await holders[2].query('begin; insert into other values (1)')
    await using running = await start()
    const { counter, journal, torn } = await openBoth(running.trunkline)
    for (let n = 1; n <= 200; n += 1) {
      await database.query('select count_up($1)', [n])
      if (n % 10 !== 0) continue
      await eventually(() => journal.size === n, { what: `commit ${n} is there`, timeoutMs: 2_000 })
    }
    await expectLevel(counter, journal)
    // And the reader does not look without end: it backs off while the same writer stays open.
    const rounds = async (): Promise<number> => {
      const [row] = await database.adminQuery<{ n: string }>(
        'select sum(xact_commit)::text as n from pg_stat_database where datname = current_database()',
      )
      return Number(row?.n)
    }
    const before = await rounds()
    const started = performance.now()
    await eventually(() => performance.now() - started > 1_500)
    expect((await rounds()) - before).toBeLessThan(200)
    await holders[0].query('commit')
    await eventually(() => Array.from(journal).some((row) => row['n'] === -1), { what: 'what it wrote is there' })
    for (const holder of holders) await holder.query('rollback')
    expect(torn).toEqual([])
    await elsewhere.drop()
  })

  test(
    'a table held by an open TRUNCATE or ALTER: after a while it is stale, the others go on; no migration fails',
    { timeout: 60_000 },
    async () => {
      await empty()
      await using running = await start({ staleAfterMs: 1_000, pollIntervalMs: 100 })
      const { counter, journal } = await openBoth(running.trunkline)
      const still = await running.trunkline.cache<AnyRow>('still')
      const migration = await database.connect()
      await migration.query('begin; truncate counter')
      await database.query("update still set name = name || '!'")
      await eventually(() => still.get(1)?.['name'] === 'a!', { what: 'another table goes on' })
      expect(counter.status).toBe('stale')
      expect(counter.staleCause).toMatchObject({ code: 'table_locked' })
      expect(counter.size).toBe(5)
      // It asks for what readers of the first table hold, too.
      await migration.query('alter table still add column note text')
      await migration.query('alter table journal add column note text')
      await migration.query('insert into counter values (9, 9)')
      await migration.query('commit')
      await migration.end()
      await expectLevel(counter, journal, still)
      expect(Array.from(counter)).toEqual([{ id: 9, n: 9 }])
      await database.query('alter table journal drop column note; alter table still drop column note')
      await database.query('truncate counter; insert into counter select id, 0 from generate_series(1, 5) as id')
    },
  )

  test(
    'the log was emptied while the reader was away: a fresh copy, and the difference as changes',
    { timeout: 60_000 },
    async () => {
      await empty()
      await database.query('select count_up(n) from generate_series(1, 20) as n')
      await using proxy = await startTcpProxy(database.url)
      await using running = await start({ url: proxy.url })
      const { counter, journal, torn } = await openBoth(running.trunkline)
      const replicas = [new EventReplica(counter), new EventReplica(journal)]
      await proxy.cut()
      await database.query('select count_up(n) from generate_series(21, 40) as n')
      await database.query('delete from journal where n < 5')
      await rotateAway(database)
      await database.query('select count_up(41)')
      await proxy.resume()
      await expectLevel(counter, journal)
      for (const [index, cache] of [counter, journal].entries()) replicas[index]?.expectEqualTo(cache)
      expect(torn).toEqual([])
    },
  )

  test('a standby is promoted: another log, fresh copies', { timeout: 90_000 }, async () => {
    await using primary = await ownCluster(version)
    const here = await prepare(primary)
    await using standby = await createStandby(primary)
    await using proxy = await startTcpProxy(here.url)
    const promotedUrl = new URL(here.url)
    promotedUrl.port = String(standby.postgres.port)
    await here.query('select count_up(n) from generate_series(1, 10) as n')
    const logger = recordingLogger()
    await using trunkline = createTrunkline({ url: proxy.url, logger })
    await trunkline.start()
    const { counter, journal, torn } = await openBoth(trunkline)
    await standby.untilCaughtUp()
    // What the standby never got: after the promotion it has not happened.
    await standby.pauseReplay()
    await here.query('select count_up(11)')
    await eventually(() => journal.size === 11)
    await proxy.cut()
    await primary.postgres.stop('immediate')
    await standby.resumeReplay().catch(() => undefined)
    await standby.promote()
    const promoted = createTrunkline({ url: promotedUrl.href })
    await promoted.pool.query(
      'delete from journal where n > 10; select count_up(n) from generate_series(100, 140) as n',
    )
    const port = await forwarding(proxy.port, standby.postgres.port)
    await eventually(() => journal.size === 51 && counter.status === 'live', {
      what: 'the caches follow the new primary',
      timeoutMs: 30_000,
    })
    await Promise.all([journal.fresh(), counter.fresh()])
    await expectEqualToSelect(
      journal,
      { query: async (text) => (await promoted.pool.query(text)).rows as unknown[] },
      'select * from journal',
    )
    await expectEqualToSelect(
      counter,
      { query: async (text) => (await promoted.pool.query(text)).rows as unknown[] },
      'select * from counter',
    )
    expect(logger.of('warn').some((line) => line.includes('another one'))).toBe(true)
    expect(torn).toEqual([])
    await trunkline.stop()
    await port.close()
    await promoted.stop()
    await promoted.pool.end()
  })

  test('a process is killed, and its successor serves the same rows', { timeout: 60_000 }, async () => {
    await empty()
    await using writer = new Writer(database)
    for (let round = 0; round < 3; round += 1) {
      const child = new CacheProcess(database.url)
      const seen = writer.committed
      await eventually(async () => (await child.ask()).size >= seen, {
        what: 'the process has what was committed',
        timeoutMs: 20_000,
      })
      await child.kill()
      await untilBackends(database, ours, (count) => count === 0)
      await writer.untilMore(10)
    }
    await writer[Symbol.asyncDispose]()
    const last = new CacheProcess(database.url)
    const answer = await last.ask()
    const [expected] = await database.query<{ size: number; sum: number }>(
      'select count(*)::integer as size, sum(n)::integer as sum from journal',
    )
    expect(answer).toEqual(expected)
    await last.kill()
  })

  test('LISTEN fails: never fatal, it polls', async () => {
    await empty()
    await using proxy = await startTcpProxy(database.url)
    await using running = await start({ url: proxy.url, listenUrl: false, pollIntervalMs: 50 })
    expect(running.trunkline.mode).toBe('poll')
    const { journal } = await openBoth(running.trunkline)
    await database.query('select count_up(1)')
    await eventually(() => journal.size === 1)
    expect(running.logger.of('warn')).toEqual([])
    expect(await findBackends(database, backendsOf('trunkline listen'))).toEqual([])
  })

  test.skipIf(lacksPgBouncer())(
    'through PgBouncer in transaction mode: says so once and polls; with listenUrl it listens',
    { timeout: 60_000 },
    async () => {
      await empty()
      await using pooler = await startPgBouncer(database)
      {
        await using running = await start({ url: pooler.url, pollIntervalMs: 100 })
        expect(running.trunkline.mode).toBe('poll')
        expect(running.logger.of('warn')).toHaveLength(1)
        expect(running.logger.of('warn')[0]).toMatch(/LISTEN does not work, polling instead.*listenUrl/)
        const { counter, journal, torn } = await openBoth(running.trunkline)
        {
          await using writer = new Writer(database)
          await writer.untilMore(100)
        }
        await expectLevel(counter, journal)
        await database.query('alter table still add column note text; update still set note = 1')
        const still = await running.trunkline.cache<AnyRow>('still')
        await database.query('alter table still drop column note')
        await expectLevel(still)
        expect(torn).toEqual([])
        expect(running.logger.of('warn')).toHaveLength(1)
      }
      await using direct = await start({ url: pooler.url, listenUrl: database.url, pollIntervalMs: 600_000 })
      expect(direct.trunkline.mode).toBe('listen')
      const { journal } = await openBoth(direct.trunkline)
      await database.query('select count_up(1)')
      await eventually(() => Array.from(journal).some((row) => row['n'] === 1))
      expect(direct.logger.of('warn')).toEqual([])
    },
  )

  test(
    'trunkline is uninstalled and installed anew under a running process: its caches go on',
    { timeout: 60_000 },
    async () => {
      const own = await prepare()
      await using trunkline = createTrunkline({ url: own.url, pollIntervalMs: 100, staleAfterMs: 1_000 })
      await trunkline.start()
      const counter = await trunkline.cache<AnyRow>('counter')
      await own.query('drop schema trunkline cascade')
      await eventually(() => counter.status === 'stale', { what: 'it is stale' })
      await install(own.url)
      for (const table of ['counter', 'still']) await trunkline.capture(table)
      await own.query('update counter set n = 100')
      await counter.fresh({ timeoutMs: 20_000 })
      await expectEqualToSelect(counter, own, 'select * from counter')
      expect((await trunkline.cache('still')).size).toBe(1)
      await trunkline.stop()
      await own.drop()
    },
  )

  test('url and listenUrl that lead to different databases: a clear error', async () => {
    const other = await prepare()
    const logger = recordingLogger()
    await using trunkline = createTrunkline({ url: database.url, listenUrl: other.url, logger })
    await trunkline.start()
    expect(await codeOf(trunkline.cache('still'))).toBe('other_log')
    await trunkline.stop()
    await other.drop()
  })
})

/** Empties the part of the log that has been written to, as rotation does when the retention is over. */
async function rotateAway(database: TestDatabase): Promise<void> {
  await eventually(async () => {
    await database.query(
      "update trunkline.slot set opened_at = opened_at - '13 hours'::interval, closed_at = closed_at - '13 hours'::interval",
    )
    await database.query('select trunkline.rotate()')
    const [row] = await database.query<{ rows: string }>('select count(*)::text as rows from trunkline.log')
    return row?.rows === '0'
  })
}

/** Takes the place of a proxy that was cut, before another server. */
async function forwarding(port: number, target: number): Promise<{ close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect({ port: target, host: '127.0.0.1' })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        client.destroy()
        upstream.destroy()
      })
    }
    client.pipe(upstream).pipe(client)
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** A cache of `journal` in a process of its own. */
class CacheProcess {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>

  constructor(url: string) {
    const program = `
      const { createTrunkline } = await import(${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)})
      const trunkline = createTrunkline({ url: ${JSON.stringify(url)} })
      await trunkline.start()
      const cache = await trunkline.cache('journal')
      process.stdin.on('data', () => {
        const rows = [...cache]
        console.log(JSON.stringify({ size: rows.length, sum: rows.reduce((sum, row) => sum + row.n, 0) }))
      })`
    this.#child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  async ask(): Promise<{ size: number; sum: number }> {
    this.#child.stdin?.write('?\n')
    const { value } = (await this.#answers.next()) as { value: string }
    return JSON.parse(value) as { size: number; sum: number }
  }

  async kill(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }
}
