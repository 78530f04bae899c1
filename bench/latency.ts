import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { createTrunkline, type Trunkline } from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { withClient } from './support/server.ts'
import { median, quantile } from './support/statistics.ts'

export const name = 'latency'
export const summary = 'commit to the change event of a cache, against a bare LISTEN/NOTIFY round trip with one SELECT'

const tableRows = 1_000
const channel = 'bench_bare'
/** No event after this long, in milliseconds: lost. */
const deadlineMs = 10_000

/**
 * Both begin just before the writer sends COMMIT, of a transaction that updated one row. Trunkline ends with the cache's
 * change event for that row, the bare way with the result of a prepared SELECT of that row, sent when the notification is
 * there. They take turns, one writer and the listeners in this process, on a server where nothing else happens.
 */
export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  return withClient(url, async (writer) => {
    await using trunkline = createTrunkline({ url })
    await trunkline.migrate()
    for (const table of ['bare', 'captured']) {
      await writer.query(`create table ${table} (id integer primary key, name text not null, version integer not null)`)
      await writer.query(`insert into ${table} select n, 'code ' || n, 0 from generate_series(1, ${tableRows}) as n`)
    }
    await trunkline.capture('captured')
    await writer.query('vacuum analyze')
    await trunkline.start()
    return await withClient(url, async (listener) =>
      withClient(url, async (reader) => {
        const bare = await openBare(writer, listener, reader)
        const captured = await openCaptured(writer, trunkline)
        const asleep = await sleepDetector(writer)
        return compare(context, { bare, captured }, asleep)
      }),
    )
  })
}

/** Updates the row, and resolves with the milliseconds from COMMIT to the row. */
type RoundTrip = (id: number) => Promise<number>

async function openBare(writer: pg.Client, listener: pg.Client, reader: pg.Client): Promise<RoundTrip> {
  let hear: (() => void) | undefined
  listener.on('notification', () => hear?.())
  await listener.query(`listen ${channel}`)
  return async (id) => {
    const heard = new Promise<void>((resolve) => {
      hear = resolve
    })
    await writer.query('begin')
    await writer.query({ name: 'bare', text: 'update bare set version = version + 1 where id = $1', values: [id] })
    await writer.query(`notify ${channel}`)
    const start = performance.now()
    const committed = writer.query('commit')
    await heard
    await reader.query({ name: 'read', text: 'select * from bare where id = $1', values: [id] })
    const end = performance.now()
    await committed
    return end - start
  }
}

async function openCaptured(writer: pg.Client, trunkline: Trunkline): Promise<RoundTrip> {
  const cache = await trunkline.cache<{ id: number; version: number }>('captured')
  let see: ((at: number) => void) | undefined
  cache.on('change', () => see?.(performance.now()))
  return async (id) => {
    const seen = new Promise<number>((resolve) => {
      see = resolve
    })
    await writer.query('begin')
    await writer.query({
      name: 'captured',
      text: 'update captured set version = version + 1 where id = $1',
      values: [id],
    })
    const start = performance.now()
    const committed = writer.query('commit')
    const end = await Promise.race([seen, pause(deadlineMs, undefined, { ref: false })])
    await committed
    if (end === undefined) throw new Error(`No change event within ${deadlineMs} ms after the commit.`)
    return end - start
  }
}

/** Resolves when a reader holds the lock that tells writers to notify. */
async function sleepDetector(control: pg.Client): Promise<() => Promise<void>> {
  const { rows } = await control.query<{ lock_class: string }>('select lock_class::text from trunkline.installation')
  const lockClass = rows[0]?.lock_class
  return async () => {
    for (;;) {
      const { rowCount } = await control.query({
        name: 'asleep',
        text: "select from pg_locks where locktype = 'advisory' and classid = $1 and mode = 'ShareLock' and granted",
        values: [lockClass],
      })
      if (rowCount !== 0) return
      await pause(2)
    }
  }
}

async function compare(
  { isQuick, progress }: BenchmarkContext,
  ways: { readonly bare: RoundTrip; readonly captured: RoundTrip },
  asleep: () => Promise<void>,
): Promise<Figure[]> {
  const samples = isQuick ? 100 : 1_500
  const warmUp = isQuick ? 20 : 200
  const found = { bare: [] as number[], captured: [] as number[] }
  for (let sample = -warmUp; sample < samples; sample += 1) {
    for (const way of sample % 2 === 0 ? (['bare', 'captured'] as const) : (['captured', 'bare'] as const)) {
      // After its last change the reader rests, looks again, then sleeps.
      await pause(15)
      await asleep()
      await pause(5)
      const ms = await ways[way](1 + ((sample + warmUp) % tableRows))
      if (sample >= 0) found[way].push(ms)
    }
    if (sample % 250 === 0) progress(`${sample} samples`)
  }
  const at = (share: number): number => quantile(found.captured, share) / quantile(found.bare, share)
  const paired = found.captured.map((ms, place) => ms / (found.bare[place] ?? Number.NaN))
  return [
    { name: 'p50: commit to change event / bare', value: at(0.5), unit: 'ratio', target: { atMost: 1.5 } },
    { name: 'p99: commit to change event / bare', value: at(0.99), unit: 'ratio', target: { atMost: 3 } },
    { name: 'median of the ratios of pairs', value: median(paired), unit: 'ratio' },
    ...([0.5, 0.9, 0.99, 1] as const).flatMap((share): Figure[] => [
      {
        name: `${share === 1 ? 'longest' : `p${share * 100}`}: commit to change event`,
        value: quantile(found.captured, share),
        unit: 'ms',
      },
      { name: `${share === 1 ? 'longest' : `p${share * 100}`}: bare`, value: quantile(found.bare, share), unit: 'ms' },
    ]),
    { name: 'samples of each', value: samples, unit: 'count' },
  ]
}
