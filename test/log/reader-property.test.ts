import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type Batch, type Change, LogReader, type LogReaderOptions, positionAt } from '../../src/log/index.ts'
import type { Queryable } from '../../src/postgres/index.ts'
import { createDatabase, describeEachPostgres, eventuallyPasses, type TestDatabase } from '../support/index.ts'
import { useTrunklineDatabase } from './captured.ts'
import { createWorkload, randomFrom, runWorkload, workloadTables } from './reader-workload.ts'

/** 10,000 in CI; the suite's own number is for a quick look. */
const transactions = Number(process.env['TRUNKLINE_TEST_TRANSACTIONS'] ?? 2_000)
const writers = 24
const seed = Number(process.env['TRUNKLINE_TEST_SEED'] ?? Date.now() % 1_000_000)

/** After a look that left nothing, in milliseconds: the writers need the machine, too. */
const restMs = 15

type Rows = Map<number, string>
/** By table, then key: the row as JSON. */
type Copy = Map<string, Rows>

/** What one reader has been given, checked as it comes. */
class Witness {
  readonly name: string
  /** `id/xid` of all rows read, in order. */
  readonly seen: string[] = []
  readonly copy: Copy
  readonly #counters = new Map<string, number>()
  /** Transactions of the steps that are over. */
  readonly #over = new Set<string>()
  #step = new Set<string>()

  constructor(name: string, start: Copy) {
    this.name = name
    this.copy = new Map([...start].map(([table, rows]) => [table, new Map(rows)]))
  }

  take(changes: readonly Change[], complete: boolean): void {
    for (const change of changes) {
      this.seen.push(`${change.id}/${change.xid}`)
      if (this.#over.has(change.xid)) this.#fail(change, 'comes after its transaction was over')
      this.#step.add(change.xid)
      if (change.table === null) this.#takeEvent(change)
      else this.#replay(change)
    }
    if (!complete) return
    for (const xid of this.#step) this.#over.add(xid)
    this.#step = new Set()
  }

  /** Events of a key are counted under a lock: each is one more than the one before. */
  #takeEvent(change: Change): void {
    const place = `${change.topic}/${change.key}`
    const { n } = change.payload as { n: number }
    if (n !== (this.#counters.get(place) ?? 0) + 1)
      this.#fail(change, `is number ${n} after ${this.#counters.get(place)}`)
    this.#counters.set(place, n)
  }

  /** The row before must be the one that the change says, the new one must not be there: any other order fails. */
  #replay(change: Change): void {
    const rows = this.copy.get(change.table!.replace('public.', ''))!
    if (change.operation === 'truncate') return rows.clear()
    if (change.old !== null) {
      const id = change.old['id'] as number
      if (rows.get(id) !== JSON.stringify(change.old)) this.#fail(change, `changes ${rows.get(id)}`)
      rows.delete(id)
    }
    if (change.new !== null) {
      const id = change.new['id'] as number
      if (rows.has(id)) this.#fail(change, `comes where ${rows.get(id)} is`)
      rows.set(id, JSON.stringify(change.new))
    }
  }

  #fail(change: Change, what: string): never {
    throw new Error(`${this.name}, seed ${seed}: ${JSON.stringify(change)} ${what}`)
  }
}

/** A reader that runs until the writers are done and nothing is left. */
async function follow(database: TestDatabase, witness: Witness, run: FollowOptions): Promise<void> {
  const client = await database.connect()
  let reader = await LogReader.open(client, run.options)
  while (true) {
    const isLast = run.isOver()
    const batch = await (run.next ?? ((r: LogReader) => r.next()))(reader)
    const kept = run.keep?.(batch) ?? batch.changes.length
    const changes = batch.changes.slice(0, kept)
    const isWhole = kept === batch.changes.length
    witness.take(changes, isWhole && batch.complete)
    const position = isWhole ? batch.position : (changes.at(-1)?.position ?? reader.position)
    if (!isWhole || run.isRestarted?.() === true)
      reader = await LogReader.open(client, { ...run.options, from: position })
    if (isLast && batch.level && isWhole) break
    if (batch.level) await delay(restMs)
  }
  await client.end()
}

interface FollowOptions {
  readonly options: LogReaderOptions
  readonly isOver: () => boolean
  readonly next?: (reader: LogReader) => Promise<Batch>
  /** How many changes of the batch count before the reader is thrown away. */
  readonly keep?: (batch: Batch) => number
  readonly isRestarted?: () => boolean
}

async function firstCopy(database: TestDatabase): Promise<{ position: string; copy: Copy }> {
  const client = await database.connect()
  await client.query('begin isolation level repeatable read')
  const { rows } = await client.query<{ identity: string; snapshot: string }>(
    'select trunkline.log_identity() as identity, txid_current_snapshot()::text as snapshot',
  )
  const copy = await readTables(client)
  await client.query('commit')
  await client.end()
  return { position: positionAt(rows[0]!.identity, rows[0]!.snapshot), copy }
}

async function readTables(queryable: Queryable): Promise<Copy> {
  const copy: Copy = new Map()
  for (const table of workloadTables) {
    const { rows } = await queryable.query<{ id: number }>(`select * from ${table}`)
    copy.set(table, new Map(rows.map((row) => [row.id, JSON.stringify(row)])))
  }
  return copy
}

function sorted(copy: Copy): Record<string, string[]> {
  return Object.fromEntries([...copy].map(([table, rows]) => [table, [...rows.values()].toSorted()]))
}

describeEachPostgres('readers beside random concurrent transactions', (server) => {
  const database = useTrunklineDatabase(server)

  test(`${transactions} transactions of ${writers} writers`, { timeout: 600_000, retry: 0 }, async () => {
    const db = database()
    await createWorkload(db)
    const { position, copy } = await firstCopy(db)
    const random = randomFrom(seed)
    let isOver = false
    const shared = { isOver: (): boolean => isOver }
    const options: LogReaderOptions = { from: position }

    // Open all the time: in this database, in another, and one that wrote before all others.
    const idle = await db.connect()
    await idle.query('begin; select txid_current()')
    await using otherDatabase = await createDatabase(server)
    const foreign = await otherDatabase.connect()
    await foreign.query('begin; select txid_current()')
    const early = await db.connect()
    await early.query("begin; insert into quiet values (1, 'early')")

    const witnesses = ['steady', 'restarted', 'tiny pages', 'few bytes', 'whole'].map((name) => new Witness(name, copy))
    const [steady, restarted, tiny, fewBytes, whole] = witnesses as [Witness, Witness, Witness, Witness, Witness]
    const following = Promise.all([
      follow(db, steady, { ...shared, options }),
      follow(db, restarted, {
        ...shared,
        options,
        isRestarted: () => random() < 0.3,
        keep: ({ changes }) => (random() < 0.3 ? Math.ceil(random() * changes.length) : changes.length),
      }),
      follow(db, tiny, { ...shared, options: { ...options, pageRowsMax: 25 } }),
      follow(db, fewBytes, { ...shared, options: { ...options, pageBytesMax: 6_000 } }),
      follow(db, whole, { ...shared, options: { ...options, decoding: 'json' }, next: (reader) => reader.nextWhole() }),
    ])
    following.catch(() => undefined)

    const report = await Promise.race([
      runWorkload(db, { writers, transactions, seed }),
      // A reader that fails ends the test at once.
      following.then(() => expect.fail('a reader ended before the writers')),
    ])
    // What the early writer holds back is its own rows alone.
    await eventuallyPasses(async () => {
      const [count] = await db.query<{ n: number }>('select count(*)::integer as n from trunkline.log')
      expect(steady.seen.length).toBe(count?.n)
    })
    await early.query('commit')
    isOver = true
    await following
    await idle.query('rollback')
    await foreign.query('rollback')

    const written = await db.query<{ row: string }>("select id || '/' || xid as row from trunkline.log order by id")
    const present = sorted(await readTables({ query: async (text) => ({ rows: await db.query(text) }) }))
    for (const witness of witnesses) {
      expect(new Set(witness.seen).size, `${witness.name} got a row twice`).toBe(witness.seen.length)
      expect(new Set(witness.seen), witness.name).toEqual(new Set(written.map(({ row }) => row)))
      expect(sorted(witness.copy), witness.name).toEqual(present)
    }
    // One that comes late reads the same, all of it from tick to tick.
    const late = new Witness('late', copy)
    await follow(db, late, { ...shared, options })
    expect(new Set(late.seen)).toEqual(new Set(steady.seen))
    expect(sorted(late.copy)).toEqual(present)
    expect(report.committed).toBeGreaterThan(transactions / 2)
    expect(report.rolledBack).toBeGreaterThan(transactions / 20)
  })
})
