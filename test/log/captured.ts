import pg from 'pg'
import { beforeAll, expect } from 'vitest'
import type { Queryable } from '../../src/postgres/index.ts'
import { migrate } from '../../src/schema/index.ts'
import { type TestDatabase, type TestServer, useDatabase } from '../support/index.ts'

/** A row of the log as capture wrote it. */
export interface LogRow {
  readonly id: string
  readonly xid: string
  readonly operation: 'i' | 'u' | 'd' | 't' | 'e' | 'x'
  /** Images as text: what JSON.parse would lose stays. */
  readonly old: string | null
  readonly new: string | null
}

/** A database with the schema `trunkline`, made before the tests of the surrounding suite. */
export function useTrunklineDatabase(server: TestServer): () => TestDatabase {
  const database = useDatabase(server)
  beforeAll(() => install(database().url))
  return database
}

/** Migrates a database, as its owner. */
export async function install(url: string, schema = 'trunkline'): Promise<void> {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  try {
    await migrate({ pool, schema })
  } finally {
    await pool.end()
  }
}

/** What the log has of a table, in order. */
export async function logOf(database: TestDatabase, table: string): Promise<LogRow[]> {
  return database.query<LogRow & pg.QueryResultRow>(
    `select l.id::text, l.xid::text, l.operation::text, l.old::text, l.new::text
    from trunkline.log as l join trunkline.topic as t on t.id = l.topic
    where t.relation = trunkline.find_table($1) order by l.id`,
    [table],
  )
}

/** The operations the log has of a table, in order: `iiud`. */
export async function operationsOf(database: TestDatabase, table: string): Promise<string> {
  return (await logOf(database, table)).map((row) => row.operation).join('')
}

/**
 * Replays the log of a table from nothing, in its order, and expects what the table has. Each old image must be there
 * when it is taken away: a log in the wrong order fails, even if the sum is right.
 */
export async function expectReplay(database: TestDatabase, table: string, where = 'true'): Promise<void> {
  const images = new Map<string, number>()
  const change = (image: string, by: number): void => {
    const count = (images.get(image) ?? 0) + by
    if (count < 0) expect.fail(`the log takes ${image} away before it was there`)
    if (count === 0) images.delete(image)
    else images.set(image, count)
  }
  for (const row of await logOf(database, table)) {
    if (row.operation === 't') images.clear()
    if (row.old !== null) change(canonical(row.old), -1)
    if (row.new !== null) change(canonical(row.new), 1)
  }
  const present = await database.query<{ image: string }>(
    `select row_to_json(t)::text as image from ${table} as t where ${where}`,
  )
  const replayed = [...images].flatMap(([image, count]) => Array.from({ length: count }, () => image))
  expect(replayed.toSorted()).toEqual(present.map(({ image }) => canonical(image)).toSorted())
}

/** Columns of a partition may come in another order than the root's. */
function canonical(image: string): string {
  const entries = Object.entries(JSON.parse(image) as Record<string, unknown>)
  return JSON.stringify(Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1))))
}

/** Whether a statement is refused; the transaction of a test goes on in another client. */
export async function sqlStateOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise
    return undefined
  } catch (error) {
    return (error as { code?: string }).code
  }
}

/** The owner's connections as what captureTable asks for. */
export function queryableOf(database: TestDatabase): Queryable {
  return { query: async (text, values) => ({ rows: await database.query(text, values) }) }
}
