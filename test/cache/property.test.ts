import { setImmediate } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type Cache, createTrunkline, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import { useTrunklineDatabase } from '../log/captured.ts'
import { describeEachPostgres, type TestDatabase } from '../support/index.ts'
import { type AnyRow, EventReplica, expectSameRows, recordingLogger } from './cached.ts'
import { createWorkload, preparedNames, runWorkload, summedTables, total } from './workload.ts'

/** 10,000 in CI; the suite's own number is for a quick look. */
const transactions = Number(process.env['TRUNKLINE_TEST_TRANSACTIONS'] ?? 1_500)
const seed = Number(process.env['TRUNKLINE_TEST_SEED'] ?? Date.now() % 1_000_000)
const writers = 24

/** The caches of all tables in one process, watched all the time. */
class Watch implements AsyncDisposable {
  readonly trunkline: Trunkline
  readonly logger = recordingLogger()
  readonly problems = new Set<string>()
  readonly #caches = new Map<string, Cache<AnyRow>>()
  readonly #replicas = new Map<string, EventReplica>()
  /** Looks at the sum. */
  looks = 0
  /** Different sets of rows seen by looks. */
  steps = 0

  constructor(database: TestDatabase, options: Partial<TrunklineOptions>) {
    this.trunkline = createTrunkline({ url: database.url, logger: this.logger, ...options })
  }

  static async open(database: TestDatabase, options: Partial<TrunklineOptions> = {}): Promise<Watch> {
    const watch = new Watch(database, options)
    await watch.trunkline.start()
    for (const name of [...summedTables, ...preparedNames]) {
      const cache = await watch.trunkline.cache<AnyRow>(name, { indexes: { note: ['note'] } })
      watch.#caches.set(name, cache)
      watch.#replicas.set(name, new EventReplica(cache))
    }
    for (const cache of watch.#caches.values()) {
      cache.on('changes', () => {
        watch.steps += 1
        watch.look('a listener')
      })
    }
    return watch
  }

  /** Never half of a transaction: what one table loses another one has. (A stale cache has said that it is behind.) */
  look(who: string): void {
    this.looks += 1
    for (const names of [summedTables, preparedNames]) {
      if (names.some((name) => this.#cache(name).status !== 'live')) continue
      let sum = 0n
      for (const name of names) for (const row of this.#cache(name)) sum += BigInt(row['balance'] as string)
      if (sum !== total) this.problems.add(`${who} saw the sum ${sum} in ${names.join(', ')}`)
    }
  }

  async expectLevel(database: TestDatabase): Promise<void> {
    for (const [name, cache] of this.#caches) {
      await cache.fresh()
      expectSameRows(cache, await database.query(`select * from ${name}`))
      this.#replicas.get(name)?.expectEqualTo(cache)
      const notes = new Set(Array.from(cache, (row) => row['note']))
      for (const note of notes)
        expectSameRows(
          cache.by('note', note),
          await database.query(`select * from ${name} where note is not distinct from $1`, [note]),
        )
      expect(cache.status).toBe('live')
    }
    expect(Array.from(this.problems)).toEqual([])
    expect(this.logger.of('error')).toEqual([])
    // A copy that contradicts the log is mended by a fresh one; it must not come to that.
    expect(this.logger.of('warn').filter((line) => line.includes('taking a fresh copy'))).toEqual([])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.trunkline.stop()
  }

  #cache(name: string): Cache<AnyRow> {
    return this.#caches.get(name) as Cache<AnyRow>
  }
}

describeEachPostgres(`caches under random concurrent transactions, seed ${seed}`, (server) => {
  const database = useTrunklineDatabase(server)

  test(
    `whole transactions only, and level at the end, after ${transactions}`,
    { timeout: 60_000 + 60 * transactions, retry: 0 },
    async () => {
      await createWorkload(database())
      await using listening = await Watch.open(database())
      await using polling = await Watch.open(database(), { listenUrl: false, pollIntervalMs: 40 })
      const rich = await listening.trunkline.cache<AnyRow>('account', { where: 'balance > 150', columns: ['balance'] })
      const richEvents = new EventReplica(rich)
      const part = await listening.trunkline.cache<AnyRow>('wallet', {
        where: "owner < 'o3'",
        columns: ['owner', 'balance'],
      })
      const partEvents = new EventReplica(part)

      const late: Promise<Watch>[] = []
      const over = new AbortController()
      const looking = (async () => {
        while (!over.signal.aborted) {
          listening.look('a reader')
          polling.look('a reader')
          await setImmediate()
        }
      })()
      const report = await runWorkload(database(), {
        writers,
        transactions,
        seed,
        onProgress: (done) => {
          if (late.length < 2 && done > ((late.length + 1) * transactions) / 3) late.push(Watch.open(database()))
        },
      })
      over.abort()
      await looking

      for (const watch of await Promise.all(late)) {
        await using _closed = watch
        await watch.expectLevel(database())
      }
      for (const watch of [listening, polling]) {
        await watch.expectLevel(database())
        expect(watch.steps).toBeGreaterThan(10)
      }
      await Promise.all([rich.fresh(), part.fresh()])
      expectSameRows(rich, await database().query('select id, balance from account where balance > 150'))
      expectSameRows(part, await database().query("select owner, balance from wallet where owner < 'o3'"))
      richEvents.expectEqualTo(rich)
      partEvents.expectEqualTo(part)
      expect(report.committed).toBeGreaterThan(transactions / 3)
      expect(report.prepared).toBeGreaterThan(0)
      expect(report.rolledBack).toBeGreaterThan(0)
      expect(listening.looks).toBeGreaterThan(transactions)
    },
  )
})
