import { type Pool } from 'pg'
import { type Row } from '../../index.ts'
import { elapsedMs, nowMs } from './clock.ts'
import { fingerprintOf, keyOf, textOf } from './fingerprint.ts'
import { type Fleet, type Instance } from './fleet.ts'
import { type TableFingerprint } from './messages.ts'
import { type DemoTable, demoTables } from './tables.ts'

/** One row that an instance holds otherwise than the table does. */
export interface Difference {
  readonly instance: number
  readonly table: string
  /** The key's columns as JSON. */
  readonly key: string
  /** The row as SELECT gives it, as JSON; undefined: there is none. */
  readonly expected: string | undefined
  /** The row as the instance holds it. */
  readonly found: string | undefined
}

export interface Comparison {
  readonly instances: number
  /** Rows of all tables, each of which was compared in every instance. */
  readonly rows: number
  /** All rows that differ, counted in each instance; `shown` are the first ones. */
  readonly differences: number
  readonly shown: readonly Difference[]
  /** SHA-256 over the columns' names and all rows' hashes, by table. */
  readonly digests: Readonly<Record<string, string>>
  readonly compareMs: number
}

/** Differences that are shown in full. */
const shownMax = 20

/**
 * Compares every row of every instance with a SELECT. Nothing may be written meanwhile. Each side makes a hash of each
 * row, in the order of the keys; where these are not all the same, the rows themselves are fetched and compared.
 */
export async function compareAll(pool: Pool, fleet: Fleet): Promise<Comparison> {
  const started = nowMs()
  const instances = fleet.running
  const [selected, ...fingerprints] = await Promise.all([
    Promise.all(demoTables.map((table) => selectTable(pool, table))),
    ...instances.map(({ process }) => process.ask({ ask: 'fingerprints' })),
  ])
  const differences: Difference[] = []
  for (const [place, instance] of instances.entries()) {
    for (const table of selected) {
      const found = fingerprints[place]?.find((print) => print.table === table.print.table)
      if (!isSame(table.print, found)) differences.push(...(await differencesIn(instance, table)))
    }
  }
  return {
    instances: instances.length,
    rows: selected.reduce((sum, { rows }) => sum + rows.length, 0),
    differences: differences.length,
    shown: differences.slice(0, shownMax),
    digests: Object.fromEntries(selected.map(({ print }) => [print.table, print.digest])),
    compareMs: elapsedMs(started),
  }
}

/** What the database holds of one table. */
interface SelectedTable {
  readonly table: DemoTable
  readonly print: TableFingerprint
  readonly rows: readonly Row[]
}

async function selectTable(pool: Pool, table: DemoTable): Promise<SelectedTable> {
  const { rows } = await pool.query<Row>(`select * from ${table.name}`)
  return { table, print: fingerprintOf(table, rows), rows }
}

function isSame(expected: TableFingerprint, found: TableFingerprint | undefined): boolean {
  return found !== undefined && Buffer.compare(expected.hashes, found.hashes) === 0 && expected.digest === found.digest
}

/** Rows that are on one side only, or not the same, or there twice. */
async function differencesIn({ instance, process }: Instance, { table, rows }: SelectedTable): Promise<Difference[]> {
  const expected = new Map(rows.map((row) => [keyOf(table, row), textOf(row)]))
  const differences: Difference[] = []
  for (const row of await process.ask({ ask: 'rows', table: table.name })) {
    const [key, found] = [keyOf(table, row), textOf(row)]
    const wanted = expected.get(key)
    expected.delete(key)
    if (found !== wanted) differences.push({ instance, table: table.name, key, expected: wanted, found })
  }
  for (const [key, wanted] of expected) {
    differences.push({ instance, table: table.name, key, expected: wanted, found: undefined })
  }
  if (differences.length > 0) return differences
  throw new Error(`Instance ${instance} changed ${table.name} while it was compared, and nothing was written.`)
}
