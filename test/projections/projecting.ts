import { onTestFinished } from 'vitest'
import { createTrunkline, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import type { TestDatabase } from '../support/index.ts'

/** A trunkline of a test, stopped after it. */
export function open(
  database: TestDatabase,
  options: Omit<TrunklineOptions, 'url' | 'pool'> & { url?: string } = {},
): Trunkline {
  const trunkline = createTrunkline({ url: database.url, pollIntervalMs: 100, ...options })
  onTestFinished(() => trunkline.stop())
  return trunkline
}

/** The schema of trunkline in a database that has it or not. */
export async function prepare(database: TestDatabase): Promise<void> {
  await install(database.url)
}

export interface Difference {
  readonly missing: string
  readonly foreign: string
  readonly sums: string
  readonly turned: string
}

/** What the read model and a replay of the events by SQL differ in: all of it is '0' where they are equal. */
export async function differences(database: TestDatabase, name: string): Promise<Difference> {
  const [row] = await database.query<Difference & Record<string, unknown>>(
    `with expected as (
       select e.position, e.aggregate_type || '-' || e.aggregate_id as stream, e.version, (e.payload ->> 'by')::bigint as n
       from trunkline.event as e where e.type = 'counted'
     ), sums as (select stream, count(*)::int as events, sum(n)::bigint as sum from expected group by stream)
     select
       (select count(*)::text from expected as e where not exists (select from ${name} as t where t.position = e.position)) as missing,
       (select count(*)::text from ${name} as t where not exists (select from expected as e where e.position = t.position and e.stream = t.stream and e.version = t.version)) as foreign,
       (select count(*)::text from (
         (select stream, events, sum from sums except select stream, events, sum from ${name}_sum)
         union all (select stream, events, sum from ${name}_sum except select stream, events, sum from sums)
       ) as d) as sums,
       (select count(*)::text from (
         select t.version < lag(t.version) over (partition by t.stream order by t.place) as is_turned from ${name} as t
       ) as o where o.is_turned) as turned`,
  )
  return row as Difference
}

export const noDifference: Difference = { missing: '0', foreign: '0', sums: '0', turned: '0' }
