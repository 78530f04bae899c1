import pg from 'pg'
import { LogReader, positionAt } from '../src/log/index.ts'
import { migrate } from '../src/schema/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { withClient } from './support/server.ts'
import { median, quantile } from './support/statistics.ts'

export const name = 'page-cost'
export const summary = 'one page of 1,000 changes at a backlog of 10,000 and of 5 million rows'
/** Backlogs are written as fast as can be; they are read from memory and page cache. */
export const settings = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }

const pageRows = 1_000
const smallBacklog = 10_000
/** Rows of a small transaction. */
const smallTransaction = 5

/** What a backlog is made of: by each of the two writers that run at the same time. */
const shapes = {
  'small transactions': ['small', 'small'],
  'bulk transactions': ['bulk', 'bulk'],
  'both, mixed': ['small', 'bulk'],
} as const
type Shape = keyof typeof shapes

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const largeBacklog = context.isQuick ? 400_000 : 5_000_000
  const figures: Figure[] = []
  for (const shape of Object.keys(shapes) as Shape[]) {
    const small = await createBacklog(context, shape, smallBacklog)
    const large = await createBacklog(context, shape, largeBacklog)
    figures.push(...(await compare(context, shape, small, large)))
  }
  return figures
}

/** A database with a log of that many rows. Returns its URL. */
async function createBacklog(context: BenchmarkContext, shape: Shape, rows: number): Promise<string> {
  const url = await context.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  await migrate({ pool, schema: 'trunkline' })
  await pool.end()
  const start = performance.now()
  await withClient(url, async (client) => {
    await client.query(`
      create table reading (id bigint, sensor integer, value text);
      select trunkline.capture('reading');
      create procedure write_small(low bigint, high bigint, step integer) language plpgsql as $$
      begin
        for part in 0 .. (high - low) / step - 1 loop
          insert into reading select low + part * step + g, g, 'twenty-one and a half' from generate_series(0, step - 1) as g;
          commit;
        end loop;
      end $$`)
  })
  const half = rows / 2
  await Promise.all(shapes[shape].map(async (kind, writer) => writeHalf(url, kind, writer * half, half)))
  context.progress(`${shape}: wrote a backlog of ${rows} rows in ${Math.round((performance.now() - start) / 1_000)} s`)
  return url
}

async function writeHalf(url: string, kind: 'small' | 'bulk', from: number, count: number): Promise<void> {
  await withClient(url, async (client) => {
    if (kind === 'small') {
      await client.query(`call write_small(${from}, ${from + count}, ${smallTransaction})`)
      return
    }
    // Two transactions: the second is not the first one's neighbour.
    for (const first of [from, from + count / 2]) {
      await client.query(
        `insert into reading select g, 7, 'twenty-one and a half' from generate_series($1::bigint, $2) as g`,
        [first, first + count / 2 - 1],
      )
    }
  })
}

async function compare(context: BenchmarkContext, shape: Shape, small: string, large: string): Promise<Figure[]> {
  const rounds = context.isQuick ? 60 : 400
  const times = { small: [] as number[], large: [] as number[] }
  await withClient(small, async (smallClient) =>
    withClient(large, async (largeClient) => {
      const smallPages = pagesOf(smallClient, await places(smallClient))
      const largePages = pagesOf(largeClient, await places(largeClient))
      // The first pages warm up plans and memory.
      for (let round = -20; round < rounds; round += 1) {
        const [one, other] = [await smallPages(), await largePages()]
        if (round >= 0) {
          times.small.push(one)
          times.large.push(other)
        }
      }
    }),
  )
  return [
    {
      name: `${shape}: a page at the large backlog / at 10,000`,
      value: median(times.large) / median(times.small),
      unit: 'ratio',
      target: { atMost: 1.3 },
    },
    figure(`${shape}: page at 10,000`, times.small),
    figure(`${shape}: page at the large backlog`, times.large),
  ]
}

function figure(what: string, ms: readonly number[]): Figure {
  return { name: what, value: median(ms), unit: 'ms', spread: [quantile(ms, 0.05), quantile(ms, 0.95)] }
}

/** Positions all over the log: its beginning, the middle of its first step (in a bulk transaction), places of ticks. */
async function places(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ identity: string; snapshot: string }>(
    `select trunkline.log_identity() as identity, snapshot::text
     from (select snapshot, row_number() over (order by log_id) as place, count(*) over () as ticks from trunkline.tick) as t
     where place % greatest(ticks / 4, 1) = 1`,
  )
  const first = await (await LogReader.open(client, { from: 'beginning' })).next()
  const { rows: ends } = await client.query<{ id: string }>(
    'select (last_value / 3)::text as id from trunkline.log_id_seq',
  )
  const middle = first.position.replace(/\d+$/, ends[0]?.id ?? '')
  return ['beginning', middle, ...rows.map((row) => positionAt(row.identity, row.snapshot))]
}

/** Reads full pages, some at each place in turn, and tells how long each took. */
function pagesOf(client: pg.Client, from: readonly string[]): () => Promise<number> {
  const pagesAPlace = 8
  let reader: LogReader | undefined
  let place = 0
  let pages = 0
  return async () => {
    for (;;) {
      reader ??= await LogReader.open(client, {
        from: from[place % from.length] ?? 'beginning',
        tables: ['reading'],
        decoding: 'json',
      })
      const start = performance.now()
      const batch = await reader.next()
      const took = performance.now() - start
      pages += 1
      if (batch.level || pages % pagesAPlace === 0) {
        reader = undefined
        place += 1
      }
      // The last page of a step is shorter, and the first one of a reader learns the table.
      if (batch.changes.length === pageRows && reader !== undefined && pages % pagesAPlace !== 1) return took
    }
  }
}
