import type pg from 'pg'
import { createTrunkline, type Trunkline } from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { measureThroughput, type Throughput } from './support/measure.ts'
import { withClient } from './support/server.ts'
import { median, ratios, spread } from './support/statistics.ts'

export const name = 'write-cost'
export const summary = 'what capture costs a writer: one-row INSERT and UPDATE, an outbox by hand, bulk insert'

const bulkRows = 200_000
/** Rows that UPDATEs choose from. */
const updatedRows = 10_000

/** One way to write, on a table of its own. */
interface Variant {
  readonly name: string
  readonly table: string
  readonly script: string
  /** Runs while it is measured. */
  readonly reader?: 'cache'
}

const columns = `
  id bigint generated always as identity primary key,
  customer_id integer not null,
  status text not null,
  amount numeric(12, 2) not null,
  note text,
  created_at timestamptz not null default now()`

// As a hand-written outbox usually is: the columns of Debezium's event router, and what its relay sorts by.
const outboxTable = `
  create table outbox (
    id uuid primary key,
    aggregate_type text not null,
    aggregate_id text not null,
    type text not null,
    payload jsonb not null,
    created_at timestamptz not null default now()
  );
  create index outbox_created_at on outbox (created_at)`

const insertRow = (table: string): string =>
  `insert into ${table} (customer_id, status, amount, note) values (:customer, 'ordered', 12.34, 'leave it with the neighbour on the left');`

const insertScript = (table: string): string => String.raw`\set customer random(1, 100000)
${insertRow(table)}
`

const outboxScript = String.raw`\set customer random(1, 100000)
\set message random(1, 1000000000000000000)
begin;
${insertRow('orders_outboxed')}
insert into outbox (id, aggregate_type, aggregate_id, type, payload) values (md5(:message::text)::uuid, 'order', :customer::text, 'OrderPlaced', json_build_object('customerId', :customer::integer, 'status', 'ordered', 'amount', 12.34, 'note', 'leave it with the neighbour on the left')::jsonb);
commit;
`

const updateScript = (table: string): string => String.raw`\set id random(1, ${updatedRows})
update ${table} set status = 'paid', amount = amount + 1 where id = :id;
`

const inserts: readonly Variant[] = [
  { name: 'plain', table: 'orders_plain', script: insertScript('orders_plain') },
  { name: 'captured', table: 'orders_captured', script: insertScript('orders_captured') },
  { name: 'captured, keys', table: 'orders_keys', script: insertScript('orders_keys') },
  {
    name: 'captured, a cache follows',
    table: 'orders_followed',
    script: insertScript('orders_followed'),
    reader: 'cache',
  },
  { name: 'captured, always notified', table: 'orders_notified', script: insertScript('orders_notified') },
  { name: 'outbox by hand', table: 'orders_outboxed', script: outboxScript },
]

const updates: readonly Variant[] = [
  { name: 'plain', table: 'updated_plain', script: updateScript('updated_plain') },
  { name: 'captured', table: 'updated_captured', script: updateScript('updated_captured') },
  { name: 'captured, keys', table: 'updated_keys', script: updateScript('updated_keys') },
]

const tables = [...inserts, ...updates].map(({ table }) => table)

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const url = await context.createDatabase()
  return withClient(url, async (control) => {
    await using trunkline = createTrunkline({ url })
    await prepare(trunkline, control)
    await trunkline.start()
    // LISTEN stands, and the advisory lock of another table is held: what a writer meets in production.
    await trunkline.cache('quiet')
    const bench = { context, url, control, trunkline }
    const figures: Figure[] = []
    for (const clients of [1, 16, 32]) figures.push(...(await compareInserts(bench, clients)))
    figures.push(...(await compareUpdates(bench)))
    figures.push(...(await compareBulk(bench)))
    return figures
  })
}

interface Bench {
  readonly context: BenchmarkContext
  readonly url: string
  readonly control: pg.Client
  readonly trunkline: Trunkline
}

async function prepare(trunkline: Trunkline, control: pg.Client): Promise<void> {
  await trunkline.migrate()
  const bulk = ['bulk_plain', 'bulk_captured', 'bulk_keys']
  for (const table of [...tables, ...bulk]) await control.query(`create table ${table} (${columns})`)
  for (const { table } of updates) {
    await control.query(
      `insert into ${table} (customer_id, status, amount, note)
       select n, 'ordered', 12.34, 'leave it with the neighbour on the left' from generate_series(1, ${updatedRows}) as n`,
    )
  }
  await control.query(outboxTable)
  await control.query('create table quiet (id integer primary key, name text)')
  for (const table of ['quiet', 'orders_captured', 'orders_followed', 'updated_captured', 'bulk_captured']) {
    await trunkline.capture(table)
  }
  for (const table of ['orders_keys', 'updated_keys', 'bulk_keys']) await trunkline.capture(table, { rows: 'keys' })
  await trunkline.capture('orders_notified', { wake: 'always' })
  await control.query('vacuum analyze')
}

/** By variant, a value for each round. */
type Rounds = ReadonlyMap<string, readonly Throughput[]>

/** Rounds in which every variant runs once; every second one in the other direction, against drift. */
async function runRounds(bench: Bench, variants: readonly Variant[], clients: number, rounds: number): Promise<Rounds> {
  const found = new Map<string, Throughput[]>(variants.map((variant) => [variant.name, []]))
  for (let round = 0; round < rounds; round += 1) {
    for (const variant of round % 2 === 0 ? variants : variants.toReversed()) {
      const throughput = await runVariant(bench, variant, clients)
      found.get(variant.name)?.push(throughput)
      const cpu = throughput.cpuUs === undefined ? '' : `, ${throughput.cpuUs.toFixed(1)} us CPU`
      bench.context.progress(`${clients} clients, ${variant.name}: ${Math.round(throughput.perSecond)}/s${cpu}`)
    }
  }
  return found
}

async function runVariant(
  { context, url, control, trunkline }: Bench,
  variant: Variant,
  clients: number,
): Promise<Throughput> {
  const [warmUpMs, measureMs] = context.isQuick ? [200, 500] : [600, 2_000]
  const options = { url, control, script: variant.script, clients, warmUpMs, measureMs }
  if (variant.reader === undefined) return measureThroughput(options)
  await control.query(`truncate ${variant.table}`)
  await using _cache = await trunkline.cache(variant.table)
  return await measureThroughput(options)
}

async function compareInserts(bench: Bench, clients: number): Promise<Figure[]> {
  const rounds = bench.context.isQuick ? 2 : clients === 16 ? 11 : 5
  const found = await runRounds(bench, inserts, clients, rounds)
  const at = `INSERT, ${clients} ${clients === 1 ? 'client' : 'clients'}`
  const captured = perSecond(found, 'captured')
  const outbox = ratios(captured, perSecond(found, 'outbox by hand'))
  return [
    ...comparedToPlain(at, inserts, found, clients === 16 ? { captured: 0.7 } : {}),
    {
      name: `${at}: captured / outbox by hand`,
      value: median(outbox),
      unit: 'ratio',
      spread: spread(outbox),
      target: clients === 16 ? { atLeast: 1.6 } : undefined,
    },
    ...details(at, inserts, found),
  ]
}

async function compareUpdates(bench: Bench): Promise<Figure[]> {
  const found = await runRounds(bench, updates, 16, bench.context.isQuick ? 2 : 5)
  const at = 'UPDATE by key, 16 clients'
  return [...comparedToPlain(at, updates, found, {}), ...details(at, updates, found)]
}

function comparedToPlain(
  at: string,
  variants: readonly Variant[],
  found: Rounds,
  targets: Readonly<Record<string, number>>,
): Figure[] {
  const plain = perSecond(found, 'plain')
  return variants
    .filter((variant) => variant.name !== 'plain')
    .map((variant) => {
      const compared = ratios(perSecond(found, variant.name), plain)
      const atLeast = targets[variant.name]
      return {
        name: `${at}: ${variant.name} / plain`,
        value: median(compared),
        unit: 'ratio',
        spread: spread(compared),
        target: atLeast === undefined ? undefined : { atLeast },
      }
    })
}

function details(at: string, variants: readonly Variant[], found: Rounds): Figure[] {
  return variants.flatMap((variant) => {
    const rates = perSecond(found, variant.name)
    const cpu = (found.get(variant.name) ?? []).flatMap(({ cpuUs }) => cpuUs ?? [])
    const rate: Figure = {
      name: `${at}: ${variant.name}`,
      value: median(rates),
      unit: 'per second',
      spread: spread(rates),
    }
    if (cpu.length === 0) return [rate]
    return [
      rate,
      {
        name: `${at}: ${variant.name}, CPU of the server a transaction`,
        value: median(cpu),
        unit: 'us',
        spread: spread(cpu),
      },
    ]
  })
}

function perSecond(found: Rounds, variant: string): number[] {
  return (found.get(variant) ?? []).map((throughput) => throughput.perSecond)
}

async function compareBulk({ context, control }: Bench): Promise<Figure[]> {
  const bulk = ['plain', 'captured', 'keys'] as const
  const seconds = { plain: [] as number[], captured: [] as number[], keys: [] as number[] }
  for (let round = 0; round < (context.isQuick ? 1 : 5); round += 1) {
    for (const variant of round % 2 === 0 ? bulk : bulk.toReversed()) {
      seconds[variant].push(await insertBulk(control, `bulk_${variant}`))
      context.progress(`bulk, ${variant}: ${seconds[variant].at(-1)?.toFixed(2)} s`)
    }
  }
  const at = `bulk INSERT, ${bulkRows.toLocaleString('en')} rows`
  const captured = ratios(seconds.captured, seconds.plain)
  const keys = ratios(seconds.keys, seconds.plain)
  return [
    {
      name: `${at}: captured / plain`,
      value: median(captured),
      unit: 'ratio',
      spread: spread(captured),
      target: { atMost: 1.8 },
    },
    { name: `${at}: captured, keys / plain`, value: median(keys), unit: 'ratio', spread: spread(keys) },
    ...bulk.map((variant): Figure => ({
      name: `${at}: ${variant}`,
      value: median(seconds[variant]),
      unit: 's',
      spread: spread(seconds[variant]),
    })),
  ]
}

async function insertBulk(control: pg.Client, table: string): Promise<number> {
  await control.query(`truncate ${table}`)
  // So that no round pays for the one before.
  await control.query('checkpoint')
  const start = performance.now()
  await control.query(
    `insert into ${table} (customer_id, status, amount, note)
     select n, 'ordered', 12.34, 'leave it with the neighbour on the left' from generate_series(1, ${bulkRows}) as n`,
  )
  return (performance.now() - start) / 1_000
}
