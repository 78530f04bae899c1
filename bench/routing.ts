import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { createTrunkline, type Trunkline } from '../src/index.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../src/testing/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { withClient } from './support/server.ts'
import { median, quantile, spread } from './support/statistics.ts'

export const name = 'routing'
export const summary =
  'a routed read against pool.connect, BEGIN READ ONLY, query, COMMIT on the same server; reads of two standbys'

const clients = 8
const tableRows = 10_000
const statement = 'select * from bench_row where id = $1'

/**
 * Both ways read one row by its key, on the same standby and with as many connections, in turns of equal length: one client at a
 * time (latency), and eight (throughput). Then a load of reads and no write on two standbys, and who answered is counted.
 */
export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  await withClient(url, async (client) => {
    await client.query('create table bench_row (id integer primary key, note text not null)')
    await client.query(`insert into bench_row select n, 'note ' || n from generate_series(1, ${tableRows}) as n`)
    await client.query('vacuum analyze')
  })
  await using first = await startStandby(context)
  await using second = await startStandby(context)
  const replicaUrls = [first, second].map(({ port }) => onPort(url, port))
  for (const replicaUrl of replicaUrls) await untilThere(replicaUrl)
  return [...(await overhead(context, url, replicaUrls[0] ?? '')), ...(await sharing(context, url, replicaUrls))]
}

/** Reads the row. */
type Read = (id: number) => Promise<unknown>

async function overhead(context: BenchmarkContext, url: string, replicaUrl: string): Promise<Figure[]> {
  const pool = new pg.Pool({ connectionString: replicaUrl, max: clients })
  const trunkline = createTrunkline({ url, replicaUrls: [replicaUrl], routing: { poolSizeMax: clients } })
  await trunkline.routing.start()
  const ways: Record<'bare' | 'routed' | 'session', Read> = {
    bare: async (id) => bareRead(pool, id),
    routed: async (id) => trunkline.read(async (tx) => tx.query(statement, [id])),
    session: async (id) =>
      trunkline.routing.session(async () => trunkline.read(async (tx) => tx.query(statement, [id]))),
  }
  try {
    const one = await compare(context, ways, 1)
    const many = await compare(context, ways, clients)
    return [
      ...figures('one client', one, 1.1),
      ...figures(`${clients} clients`, many, 1.1),
      { name: 'one client: p50 of a bare read', value: 1_000 * quantile(one.bare, 0.5), unit: 'us' },
      { name: 'one client: p50 of a routed read', value: 1_000 * quantile(one.routed, 0.5), unit: 'us' },
    ]
  } finally {
    await trunkline.stop()
    await pool.end()
  }
}

async function bareRead(pool: pg.Pool, id: number): Promise<unknown> {
  const client = await pool.connect()
  try {
    await client.query('begin read only')
    const result = await client.query(statement, [id])
    await client.query('commit')
    return result
  } finally {
    client.release()
  }
}

/** Milliseconds of one read, by round: the time of a round over its reads of one client. */
async function compare<Name extends string>(
  { isQuick, progress }: BenchmarkContext,
  ways: Readonly<Record<Name, Read>>,
  concurrency: number,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(ways) as Name[]
  const rounds = isQuick ? 3 : 30
  const reads = isQuick ? 50 : 400
  const times = Object.fromEntries(names.map((each) => [each, [] as number[]])) as Record<Name, number[]>
  // The first ones are of code that is not compiled yet.
  for (let round = -6; round < rounds; round += 1) {
    for (const each of round % 2 === 0 ? names : names.toReversed()) {
      const begun = performance.now()
      await Promise.all(
        Array.from({ length: concurrency }, async (_, client) => {
          for (let read = 0; read < reads; read += 1) await ways[each](1 + ((client * reads + read) % tableRows))
        }),
      )
      if (round >= 0) times[each].push((performance.now() - begun) / reads)
    }
  }
  progress(
    `${concurrency} at a time: ${names.map((each) => `${each} ${median(times[each]).toFixed(3)} ms`).join(', ')}`,
  )
  return times
}

function figures(at: string, times: Record<'bare' | 'routed' | 'session', number[]>, atMost: number): Figure[] {
  const ratios = (each: 'routed' | 'session'): number[] =>
    times[each].map((ms, round) => ms / (times.bare[round] ?? Number.NaN))
  return (['routed', 'session'] as const).map((each) => ({
    name: `${at}: time of a ${each === 'routed' ? 'routed read' : 'read in a session'} / bare`,
    value: median(ratios(each)),
    unit: 'ratio',
    spread: spread(ratios(each)),
    target: each === 'routed' ? { atMost } : undefined,
  }))
}

/** Who answers a load of reads: the standbys, about equally, and never the primary. */
async function sharing({ isQuick }: BenchmarkContext, url: string, replicaUrls: readonly string[]): Promise<Figure[]> {
  const trunkline = createTrunkline({ url, replicaUrls, routing: { poolSizeMax: clients } })
  await trunkline.routing.start()
  try {
    const reads = isQuick ? 400 : 8_000
    const counts = await countByPort(trunkline, reads)
    const shares = replicaUrls.map((each) => (counts.get(Number(new URL(each).port)) ?? 0) / reads)
    const primary = counts.get(Number(new URL(url).port)) ?? 0
    return [
      { name: 'two standbys: reads that the primary got', value: primary, unit: 'count', target: { atMost: 0 } },
      { name: 'two standbys: the smaller share', value: Math.min(...shares), unit: 'ratio', target: { atLeast: 0.4 } },
    ]
  } finally {
    await trunkline.stop()
  }
}

async function countByPort(trunkline: Trunkline, reads: number): Promise<Map<number, number>> {
  const counts = new Map<number, number>()
  await Promise.all(
    Array.from({ length: clients }, async () => {
      for (let read = 0; read < reads / clients; read += 1) {
        const { rows } = await trunkline.read(async (tx) =>
          tx.query<{ port: number }>('select inet_server_port() as port, count(*) from bench_row where id < 100'),
        )
        const port = rows[0]?.port ?? 0
        counts.set(port, (counts.get(port) ?? 0) + 1)
      }
    }),
  )
  return counts
}

async function startStandby({ version, server }: BenchmarkContext): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ version, standbyOf: server })
}

function onPort(url: string, port: number): string {
  const other = new URL(url)
  other.port = String(port)
  return other.href
}

/** Resolves when the standby has the table as it is. */
async function untilThere(url: string): Promise<void> {
  for (;;) {
    const isThere = await withClient(url, async (client) => {
      const { rows } = await client.query<{ n: number }>('select count(*)::integer as n from bench_row')
      return rows[0]?.n === tableRows
    }).catch(() => false)
    if (isThere) return
    await pause(50)
  }
}
