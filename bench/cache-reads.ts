import { do_not_optimize as keep, measure } from 'mitata'
import type pg from 'pg'
import { createTrunkline, type Trunkline } from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { withClient } from './support/server.ts'
import { median, ratios, shuffled, spread } from './support/statistics.ts'

export const name = 'cache-reads'
export const summary = 'get and by of a cache, against Map.get'

const rowCount = 10_000
/** Look-ups in one measured call, each of another key in random order. */
const lookUps = 10_000

/** The same look-ups, done by the cache and by a Map. */
interface Comparison {
  readonly name: string
  readonly cache: () => void
  readonly map: () => void
  readonly atLeast?: number
}

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  return withClient(url, async (control) => {
    await using trunkline = createTrunkline({ url })
    await prepare(trunkline, control)
    await trunkline.start()
    const comparisons = [
      await byInteger(trunkline),
      await byText(trunkline),
      ...(await byComposite(trunkline)),
      await byIndex(trunkline),
    ]
    const figures: Figure[] = []
    for (const comparison of comparisons) figures.push(...(await compare(context, comparison)))
    return figures
  })
}

async function prepare(trunkline: Trunkline, control: pg.Client): Promise<void> {
  await trunkline.migrate()
  const tables = {
    by_integer: ['id integer primary key, name text not null', "n, 'name ' || n"],
    by_text: ['code text primary key, name text not null', "'code-' || n, 'name ' || n"],
    by_composite: [
      'group_cd text, code text, name text not null, primary key (group_cd, code)',
      "'group-' || n % 100, 'code-' || n, 'name ' || n",
    ],
  }
  for (const [table, [columns = '', values = '']] of Object.entries(tables)) {
    await control.query(`create table ${table} (${columns})`)
    await control.query(`insert into ${table} select ${values} from generate_series(1, ${rowCount}) as n`)
    await trunkline.capture(table)
  }
}

async function byInteger(trunkline: Trunkline): Promise<Comparison> {
  const cache = await trunkline.cache<{ id: number }>('by_integer')
  const map = new Map([...cache].map((row) => [row.id, row]))
  const keys = shuffled([...map.keys()])
  return {
    name: 'get by an integer',
    atLeast: 0.5,
    cache: () => {
      for (const key of keys) keep(cache.get(key))
    },
    map: () => {
      for (const key of keys) keep(map.get(key))
    },
  }
}

async function byText(trunkline: Trunkline): Promise<Comparison> {
  const cache = await trunkline.cache<{ code: string }>('by_text')
  const map = new Map([...cache].map((row) => [row.code, row]))
  // Texts of their own, as they come from a request: the rows' own ones carry their hash already.
  const keys = shuffled([...map.keys()]).map(copyText)
  return {
    name: 'get by a text',
    atLeast: 0.5,
    cache: () => {
      for (const key of keys) keep(cache.get(key))
    },
    map: () => {
      for (const key of keys) keep(map.get(key))
    },
  }
}

async function byComposite(trunkline: Trunkline): Promise<Comparison[]> {
  const cache = await trunkline.cache<{ group_cd: string; code: string }>('by_composite')
  const map = new Map([...cache].map((row) => [joined(row.group_cd, row.code), row]))
  const keys = shuffled([...cache]).map((row) => ({ group_cd: copyText(row.group_cd), code: copyText(row.code) }))
  const texts = keys.map((key) => copyText(joined(key.group_cd, key.code)))
  const getFromCache = (): void => {
    for (const { group_cd, code } of keys) keep(cache.get({ group_cd, code }))
  }
  return [
    {
      name: 'get by two texts, Map by the texts joined for each call',
      atLeast: 0.5,
      cache: getFromCache,
      map: () => {
        for (const { group_cd, code } of keys) keep(map.get(joined(group_cd, code)))
      },
    },
    {
      name: 'get by two texts, Map by texts joined beforehand',
      cache: getFromCache,
      map: () => {
        for (const text of texts) keep(map.get(text))
      },
    },
  ]
}

async function byIndex(trunkline: Trunkline): Promise<Comparison> {
  const cache = await trunkline.cache<{ group_cd: string }>('by_composite', { indexes: { group: ['group_cd'] } })
  const map = Map.groupBy([...cache], (row) => row.group_cd)
  const keys = shuffled([...cache].map((row) => copyText(row.group_cd)))
  return {
    name: 'by an index of one text',
    atLeast: 0.5,
    cache: () => {
      for (const key of keys) keep(cache.by('group', key))
    },
    map: () => {
      for (const key of keys) keep(map.get(key))
    },
  }
}

function joined(groupCode: string, code: string): string {
  return `${groupCode}\u0000${code}`
}

function copyText(text: string): string {
  return Buffer.from(text).toString()
}

async function compare({ isQuick, progress }: BenchmarkContext, comparison: Comparison): Promise<Figure[]> {
  const nanoseconds = { cache: [] as number[], map: [] as number[] }
  for (let round = 0; round < (isQuick ? 3 : 15); round += 1) {
    for (const way of round % 2 === 0 ? (['cache', 'map'] as const) : (['map', 'cache'] as const)) {
      const { p50 } = await measure(comparison[way], { min_cpu_time: (isQuick ? 50 : 200) * 1e6 })
      nanoseconds[way].push(p50 / lookUps)
    }
  }
  progress(
    `${comparison.name}: ${median(nanoseconds.cache).toFixed(1)} ns, Map ${median(nanoseconds.map).toFixed(1)} ns`,
  )
  // Calls a second: the inverse of the time of one.
  const compared = ratios(nanoseconds.map, nanoseconds.cache)
  const { name: what, atLeast } = comparison
  const rate = (way: 'cache' | 'map'): Figure => {
    const rates = nanoseconds[way].map((ns) => 1e9 / ns)
    return {
      name: `${what}: calls of ${way === 'map' ? 'Map.get' : 'the cache'}`,
      value: median(rates),
      unit: 'per second',
      spread: spread(rates),
    }
  }
  return [
    {
      name: `${what}: cache / Map`,
      value: median(compared),
      unit: 'ratio',
      spread: spread(compared),
      target: atLeast === undefined ? undefined : { atLeast },
    },
    rate('cache'),
    rate('map'),
  ]
}
