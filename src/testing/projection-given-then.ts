import { AssertionError, deepStrictEqual } from 'node:assert'
import pg from 'pg'
import { type AnyUpcaster, EventCatalog } from '../aggregates/index.ts'
import { messageOf } from '../core/index.ts'
import type { RecordedEvent } from '../events/index.ts'
import { inTransaction } from '../postgres/index.ts'
import { type ProjectedEvent, type ProjectionOptions, rehearse } from '../projections/index.ts'

/** An event that has happened: its place is made up where it is not said. */
export interface GivenEvent {
  readonly type: string
  readonly payload: unknown
  /** `type-id`. Default `given-1`. */
  readonly stream?: string
  /** Default: the newest form of its type. Old ones are upcast. */
  readonly schemaVersion?: number
}

export interface ProjectionSpecificationOptions {
  /** A database in which tables may be made; nothing stays. URL, or a pool. */
  readonly database: string | pg.Pool
  /** With these, `given` takes old events, too. */
  readonly upcasters?: readonly AnyUpcaster[] | undefined
}

export interface ProjectedStep {
  /**
   * Says which rows are expected, by table, in any order. Only the columns that a row names are compared.
   *
   * @throws AssertionError of node:assert; ProjectionError of a handler.
   */
  expect(tables: Readonly<Record<string, readonly Readonly<Record<string, unknown>>[]>>): Promise<void>
  /** The rows themselves, by table. */
  rows(): Promise<Record<string, Record<string, unknown>[]>>
}

export interface ProjectionSpecification {
  /** What has happened, in order. */
  given(events: readonly GivenEvent[]): ProjectedStep
}

/**
 * A specification of a projection: given events, when they are projected, then rows. Runs its handlers in a transaction on a real
 * database, with tables of its own, and rolls it back: neither events nor rows stay.
 *
 * @example await specifyProjection(orderList, { database: url }).given([created]).expect({ order_list: [{ id: '17' }] })
 */
export function specifyProjection<Event extends ProjectedEvent>(
  projection: ProjectionOptions<Event>,
  { database, upcasters }: ProjectionSpecificationOptions,
): ProjectionSpecification {
  const catalog = new EventCatalog('given', { upcasters })
  const project = async (events: readonly GivenEvent[]): Promise<Record<string, Record<string, unknown>[]>> => {
    const versions = new Map<string, number>()
    const recorded = events.map((event, index) => recordedOf(catalog, event, index, versions))
    return rolledBack(database, async (client) => rehearse(client, projection, catalog.upcast(recorded)))
  }
  return {
    given: (events) => ({
      rows: async () => project(events),
      expect: async (tables) => {
        const found = await project(events)
        for (const [table, expected] of Object.entries(tables)) compare(table, found[table], expected, events.length)
      },
    }),
  }
}

function compare(
  table: string,
  found: readonly Record<string, unknown>[] | undefined,
  expected: readonly Readonly<Record<string, unknown>>[],
  events: number,
): void {
  const title = `Given ${events} event${events === 1 ? '' : 's'}, table ${table}`
  if (found === undefined) throw new AssertionError({ message: `${title}: the projection does not declare it.` })
  const columns = [...new Set(expected.flatMap((row) => Object.keys(row)))]
  const actual = inOrder(
    found.map((row) =>
      columns.length === 0 ? row : Object.fromEntries(columns.map((column) => [column, row[column]])),
    ),
  )
  const wanted = inOrder(expected.map((row) => Object.fromEntries(columns.map((column) => [column, row[column]]))))
  try {
    deepStrictEqual(actual, wanted)
  } catch (error) {
    throw new AssertionError({
      message: `${title}: other rows than expected.\n${messageOf(error)}`,
      actual,
      expected: wanted,
      operator: 'deepStrictEqual',
    })
  }
}

function inOrder<Row extends object>(rows: readonly Row[]): Row[] {
  return rows.toSorted((one, other) => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1))
}

/** Takes what was found out of a transaction that is to be rolled back. */
class Found extends Error {
  readonly result: unknown

  constructor(result: unknown) {
    super('Rolled back.')
    this.result = result
  }
}

async function rolledBack<Result>(
  database: string | pg.Pool,
  run: (client: pg.PoolClient) => Promise<Result>,
): Promise<Result> {
  const pool = typeof database === 'string' ? new pg.Pool({ connectionString: database, max: 1 }) : database
  try {
    return await inTransaction(pool, async (client) => {
      throw new Found(await run(client))
    })
  } catch (error) {
    if (error instanceof Found) return error.result as Result
    throw error
  } finally {
    if (typeof database === 'string') await pool.end()
  }
}

function recordedOf(
  catalog: EventCatalog,
  event: GivenEvent,
  index: number,
  versions: Map<string, number>,
): RecordedEvent {
  const { type, payload, stream = 'given-1', schemaVersion = catalog.newestVersion(event.type) } = event
  const version = 1 + (versions.get(stream) ?? 0)
  versions.set(stream, version)
  const divider = stream.indexOf('-')
  return {
    position: String(index + 1),
    id: `00000000-0000-7000-8000-${String(index + 1).padStart(12, '0')}`,
    stream,
    aggregateType: divider === -1 ? stream : stream.slice(0, divider),
    aggregateId: divider === -1 ? '' : stream.slice(divider + 1),
    version,
    type,
    schemaVersion,
    payload: JSON.parse(JSON.stringify(payload ?? null)) as unknown,
    metadata: {},
    createdAt: new Date(index),
  }
}
