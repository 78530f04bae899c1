import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { createTrunkline } from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { Fleet } from './support/fleet.ts'
import { Heartbeat } from './support/heartbeat.ts'
import { measureThroughput } from './support/measure.ts'
import { withClient } from './support/server.ts'
import { median, ratios, spread } from './support/statistics.ts'

export const name = 'fleet'
export const summary = 'what 200 listening caches cost 16 writers, on a quiet table and on the one that is written'
/** Each instance listens on one connection and reads on another, and copies over a third. */
export const settings = { max_connections: '1000' }

const clients = 16
const tableRows = 1_000
/** As the documentation advises for hundreds of processes. */
const pace = { minIntervalMs: 100, pollIntervalMs: 5_000 }
/** How long arrivals are waited for after the last beat that counts, in milliseconds. */
const graceMs = 1_000

interface Case {
  readonly name: string
  /** What the caches hold. */
  readonly cached: string
  /** What the clients write. */
  readonly written: string
  readonly atLeast?: number
}

const cases: readonly Case[] = [
  { name: 'a quiet table', cached: 'quiet', written: 'reference_full', atLeast: 0.9 },
  { name: 'the table that is written', cached: 'reference_full', written: 'reference_full', atLeast: 0.5 },
  { name: 'the table that is written, keys', cached: 'reference_keys', written: 'reference_keys' },
]

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  const size = context.isQuick ? 20 : 200
  return withClient(url, async (control) => {
    await prepare(url, control)
    const figures: Figure[] = []
    for (const each of cases) figures.push(...(await runCase({ context, url, control, size }, each)))
    return figures
  })
}

async function prepare(url: string, control: pg.Client): Promise<void> {
  await using trunkline = createTrunkline({ url })
  await trunkline.migrate()
  for (const table of ['quiet', 'reference_full', 'reference_keys']) {
    await control.query(`create table ${table} (id integer primary key, name text not null, version integer not null)`)
    await control.query(`insert into ${table} select n, 'code ' || n, 0 from generate_series(0, ${tableRows}) as n`)
    await trunkline.capture(table, { rows: table === 'reference_keys' ? 'keys' : 'full' })
  }
  await control.query('vacuum analyze')
}

interface Bench {
  readonly context: BenchmarkContext
  readonly url: string
  readonly control: pg.Client
  readonly size: number
}

async function runCase(bench: Bench, each: Case): Promise<Figure[]> {
  const { context, size } = bench
  const found = { without: [] as number[], with: [] as number[], worst: [] as number[], typical: [] as number[] }
  const runs = {
    without: async () => void found.without.push(await throughput(bench, each)),
    with: async () => {
      const { perSecond, behind } = await withFleet(bench, each)
      found.with.push(perSecond)
      if (behind.length === 0) return
      found.worst.push(Math.max(...behind))
      found.typical.push(median(behind))
    },
  }
  for (let round = 0; round < (context.isQuick ? 1 : 5); round += 1) {
    for (const way of round % 2 === 0 ? (['without', 'with'] as const) : (['with', 'without'] as const))
      await runs[way]()
    const [without, together, worst] = [found.without, found.with, found.worst].map((values) =>
      values.at(-1)?.toFixed(0),
    )
    const behind = worst === undefined ? '' : `, behind ${worst} ms at most`
    context.progress(`${each.name}: ${without}/s, with ${size} caches ${together}/s${behind}`)
  }
  return figuresOf(`${size} caches of ${each.name}`, each, found)
}

function figuresOf(
  on: string,
  { atLeast }: Case,
  found: Readonly<Record<'without' | 'with' | 'worst' | 'typical', readonly number[]>>,
): Figure[] {
  const compared = ratios(found.with, found.without)
  const figures: Figure[] = [
    {
      name: `${on}: writes with / without`,
      value: median(compared),
      unit: 'ratio',
      spread: spread(compared),
      target: atLeast === undefined ? undefined : { atLeast },
    },
    { name: `${on}: writes without`, value: median(found.without), unit: 'per second', spread: spread(found.without) },
    { name: `${on}: writes with`, value: median(found.with), unit: 'per second', spread: spread(found.with) },
  ]
  if (found.worst.length === 0) return figures
  const worst = Math.max(...found.worst)
  return [
    ...figures,
    {
      name: `${on}: behind, at most`,
      value: worst,
      unit: 'ms',
      spread: spread(found.worst),
      target: atLeast === undefined ? undefined : { atMost: 500 },
    },
    {
      name: `${on}: behind at most, half of the caches`,
      value: median(found.typical),
      unit: 'ms',
      spread: spread(found.typical),
    },
  ]
}

interface FleetResult {
  readonly perSecond: number
  /** Of each cache the longest time that it was behind, in milliseconds; empty when its table was not written. */
  readonly behind: readonly number[]
}

async function withFleet(bench: Bench, each: Case): Promise<FleetResult> {
  const { context, url, size } = bench
  await using fleet = await Fleet.start({ url, table: each.cached, size, ...pace })
  await pause(context.isQuick ? 500 : 2_000)
  if (each.cached !== each.written) return { perSecond: await throughput(bench, each), behind: [] }
  return await withClient(url, async (client) => {
    const heartbeat = new Heartbeat(client, each.cached)
    heartbeat.start()
    let from = 0
    const perSecond = await throughput(bench, each, () => {
      from = Date.now()
    })
    // The load has ended; only beats that were due before count.
    const until = heartbeat.latestAt
    await heartbeat.stop()
    await pause(graceMs)
    return { perSecond, behind: heartbeat.behind(await fleet.report(), { caches: size, from, until }) }
  })
}

async function throughput(
  { context, url, control }: Bench,
  { written }: Case,
  onMeasure?: () => void,
): Promise<number> {
  const script = String.raw`\set id random(1, ${tableRows})
update ${written} set version = version + 1 where id = :id;
`
  const [warmUpMs, measureMs] = context.isQuick ? [300, 1_000] : [1_000, 5_000]
  const { perSecond } = await measureThroughput({ url, control, script, clients, warmUpMs, measureMs, onMeasure })
  return perSecond
}
