import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { createTrunkline } from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { createCities } from './support/cities.ts'
import { withClient } from './support/server.ts'
import { median, ratios, spread } from './support/statistics.ts'

export const name = 'first-copy'
export const summary = '170,000 rows into a cache, against a SELECT of them through pg; memory a row'

const ways = ['cache', 'select', 'copy'] as const
type Way = (typeof ways)[number]

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  return withClient(url, async (control) => {
    const rows = await createCities(control)
    const seconds = await compare(context, url, control)
    const bytes = { cache: await bytesPerRow(url, 'cache'), map: await bytesPerRow(url, 'map') }
    // Rows a second: the inverse of the time for the same rows.
    const compared = ratios(seconds.select, seconds.cache)
    return [
      {
        name: 'rows a second: cache / select',
        value: median(compared),
        unit: 'ratio',
        spread: spread(compared),
        target: { atLeast: 0.5 },
      },
      rate('cache', seconds.cache, rows),
      rate('select through pg', seconds.select, rows),
      rate('COPY TO on the server, thrown away there', seconds.copy, rows),
      { name: 'memory: cache / Map of the rows that pg gives', value: bytes.cache / bytes.map, unit: 'ratio' },
      { name: 'memory of a row in the cache', value: bytes.cache, unit: 'bytes' },
      { name: 'memory of a row in a Map', value: bytes.map, unit: 'bytes' },
      { name: 'rows', value: rows, unit: 'count' },
    ]
  })
}

async function compare(
  { isQuick, progress }: BenchmarkContext,
  url: string,
  control: pg.Client,
): Promise<Record<Way, number[]>> {
  await using trunkline = createTrunkline({ url })
  await trunkline.migrate()
  await trunkline.capture('city')
  await trunkline.start()
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  const actions: Record<Way, () => Promise<void>> = {
    cache: async () => {
      const cache = await trunkline.cache('city')
      // Stopped later, outside of the measured time.
      finished.push(async () => cache.stop())
    },
    select: async () => void (await pool.query('select * from city')),
    copy: async () => void (await control.query("copy city to '/dev/null'")),
  }
  const finished: (() => Promise<void>)[] = []
  const seconds: Record<Way, number[]> = { cache: [], select: [], copy: [] }
  for (let round = -1; round < (isQuick ? 3 : 11); round += 1) {
    for (const way of round % 2 === 0 ? ways : ways.toReversed()) {
      const start = performance.now()
      await actions[way]()
      const took = (performance.now() - start) / 1_000
      for (const finish of finished.splice(0)) await finish()
      // The first round warms up.
      if (round >= 0) seconds[way].push(took)
      progress(`${way}: ${took.toFixed(3)} s`)
    }
  }
  await pool.end()
  return seconds
}

function rate(what: string, seconds: readonly number[], rows: number): Figure {
  const rates = seconds.map((took) => rows / took)
  return { name: `rows a second: ${what}`, value: median(rates), unit: 'per second', spread: spread(rates) }
}

/** Measured in a process of its own, where the collector can be called. */
async function bytesPerRow(url: string, holder: 'cache' | 'map'): Promise<number> {
  const script = fileURLToPath(new URL('support/memory.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script, url, holder])
  return Number(stdout)
}
