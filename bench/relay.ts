import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Admin, compatibilityPartitioner, type MessageToProduce, Producer } from '@platformatic/kafka'
import { Logger, run as runWorker, runMigrations } from 'graphile-worker'
import type pg from 'pg'
import { PgBoss } from 'pg-boss'
import {
  createTrunkline,
  type Delivery,
  type DeliveryOutcome,
  type Sink,
  sinkFromUrl,
  type Trunkline,
} from '../src/index.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { withClient } from './support/server.ts'
import { median, quantile } from './support/statistics.ts'

export const name = 'relay'
export const summary = 'drained events a second and commit-to-delivery latency, beside graphile-worker and pg-boss'

/** Longest wait for one thing, in milliseconds. */
const deadlineMs = 300_000

/** One way to tell others of a committed row. */
interface Contender {
  readonly name: string
  /** Writes `count` events, a transaction each 100. */
  fill(client: pg.Client, count: number): Promise<void>
  /** Writes one, in the transaction that is open on the client. */
  emit(client: pg.Client, payload: object): Promise<void>
  /** Consumes into a handler that does nothing else but this. */
  consume(onEvent: (payload: { at?: number }) => void): Promise<{ stop(): Promise<void> }>
}

/** Confirms everything at once. */
class NothingSink implements Sink {
  readonly name = 'nothing:'
  readonly batchSizeMax = 500
  readonly #onEvent: (payload: { at?: number }) => void

  constructor(onEvent: (payload: { at?: number }) => void) {
    this.#onEvent = onEvent
  }

  start(): Promise<void> {
    return Promise.resolve()
  }

  stop(): Promise<void> {
    return Promise.resolve()
  }

  deliver(batch: readonly Delivery[]): Promise<readonly DeliveryOutcome[]> {
    for (const { change } of batch) this.#onEvent(change.payload as { at?: number })
    return Promise.resolve(batch.map(() => undefined))
  }
}

async function trunklineOn(url: string): Promise<Contender & AsyncDisposable> {
  const trunkline: Trunkline = createTrunkline({ url })
  await trunkline.migrate()
  return {
    name: 'trunkline',
    fill: async (client, count) =>
      fillInParts(
        client,
        count,
        `select trunkline.emit('order', 'k' || n % 1000, 'placed', jsonb_build_object('n', n, 'note', 'leave it with the neighbour')) from generate_series($1::integer, $2) as n`,
      ),
    emit: async (client, payload) => {
      await trunkline.emit(client, { topic: 'order', key: 'latency', type: 'placed', payload })
    },
    consume: async (onEvent) => {
      const relay = trunkline.relay({ name: 'bench', topics: ['order'], sink: new NothingSink(onEvent) })
      await relay.start()
      return relay
    },
    [Symbol.asyncDispose]: () => trunkline.stop(),
  }
}

async function workerOn(url: string, title: string, settings: object): Promise<Contender> {
  await runMigrations({ connectionString: url })
  return {
    name: title,
    fill: async (client, count) =>
      fillInParts(
        client,
        count,
        `select graphile_worker.add_job('noop', json_build_object('n', n, 'note', 'leave it with the neighbour')) from generate_series($1::integer, $2) as n`,
      ),
    emit: async (client, payload) => {
      await client.query("select graphile_worker.add_job('noop', $1::json)", [JSON.stringify(payload)])
    },
    consume: async (onEvent) => {
      const runner = await runWorker({
        noHandleSignals: true,
        taskList: { noop: (payload) => onEvent(payload as { at?: number }) },
        preset: { worker: { connectionString: url, logger: quietLogger, ...settings } },
      })
      return { stop: () => runner.stop() }
    },
  }
}

async function bossOn(url: string): Promise<Contender & AsyncDisposable> {
  const boss = new PgBoss({ connectionString: url, max: 12, supervise: false, schedule: false, useListenNotify: true })
  boss.on('error', (error) => console.error(`  pg-boss: ${error.message}`))
  await boss.start()
  await boss.createQueue('noop', { notify: true, partition: true })
  return {
    name: 'pg-boss',
    fill: async (_client, count) => {
      for (let n = 0; n < count; n += 500) {
        await boss.insert(
          'noop',
          Array.from({ length: Math.min(500, count - n) }, (_, m) => ({
            data: { n: n + m, note: 'leave it with the neighbour' },
          })),
        )
      }
    },
    emit: async (client, payload) => {
      await boss.send('noop', payload, {
        db: { executeSql: (text: string, values?: unknown[]) => client.query(text, values) },
      })
    },
    consume: async (onEvent) => {
      const id = await boss.work<{ at?: number }>(
        'noop',
        { batchSize: 100, pollingIntervalSeconds: 0.5, localConcurrency: 8, burstWhenBatchFull: true },
        (jobs) => {
          for (const { data } of jobs) onEvent(data)
          return Promise.resolve()
        },
      )
      return { stop: async () => boss.offWork('noop', { id, wait: true }) }
    },
    [Symbol.asyncDispose]: () => boss.stop({ graceful: false }),
  }
}

async function fillInParts(client: pg.Client, count: number, text: string): Promise<void> {
  for (let n = 0; n < count; n += 100) await client.query(text, [n, Math.min(count, n + 100) - 1])
}

/** Says nothing: thousands of jobs a second would be thousands of lines. */
const quietLogger = new Logger(() => () => undefined)

export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const worker = { concurrentJobs: 24, maxPoolSize: 12 }
  const batched = { ...worker, localQueue: { size: 200 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
  const [own, plainUrl, batchedUrl, bossUrl] = [
    await context.createDatabase(),
    await context.createDatabase(),
    await context.createDatabase(),
    await context.createDatabase(),
  ]
  await using trunkline = await trunklineOn(own)
  // It calls gen_random_uuid(), which a server has without an extension from 13 on.
  await using boss = context.version === '12' ? undefined : await bossOn(bossUrl)
  const contenders = [
    { url: own, contender: trunkline, count: 60_000 },
    { url: plainUrl, contender: await workerOn(plainUrl, 'graphile-worker', worker), count: 3_000 },
    { url: batchedUrl, contender: await workerOn(batchedUrl, 'graphile-worker, batched', batched), count: 10_000 },
    ...(boss === undefined ? [] : [{ url: bossUrl, contender: boss, count: 10_000 }]),
  ]
  const drained = new Map<string, number[]>()
  const latencies = new Map<string, number[]>()
  const rounds = context.isQuick ? 1 : 3
  for (let round = 0; round < rounds; round += 1) {
    for (const { url, contender, count } of contenders) {
      const { name: who } = contender
      const perSecond = await drainRate(url, contender, context.isQuick ? count / 2 : count)
      drained.set(who, [...(drained.get(who) ?? []), perSecond])
      const ms = await latency(url, contender, context.isQuick ? 30 : 100)
      latencies.set(who, [...(latencies.get(who) ?? []), ...ms])
      context.progress(`${who}: ${Math.round(perSecond)} events/s, p50 ${median(ms).toFixed(1)} ms`)
    }
  }
  return [...compared(drained, latencies), ...(await kafkaShare(context)), ...(await backlogCost(context))]
}

function compared(drained: ReadonlyMap<string, number[]>, latencies: ReadonlyMap<string, number[]>): Figure[] {
  const rate = (who: string): number => median(drained.get(who) ?? [])
  const own = rate('trunkline')
  const targets = new Map([
    ['graphile-worker', 10],
    ['pg-boss', 3],
  ])
  const ratios = [...drained.keys()].slice(1).map((who): Figure => {
    const target = targets.get(who)
    return {
      name: `drained: trunkline / ${who}`,
      value: own / rate(who),
      unit: 'ratio',
      target: target === undefined ? undefined : { atLeast: target },
    }
  })
  const rates = [...drained].map(([who, values]): Figure => ({
    name: `drained: ${who}`,
    value: median(values),
    unit: 'per second',
    spread: [Math.min(...values), Math.max(...values)],
  }))
  const times = [...latencies].flatMap(([who, values]): Figure[] => [
    {
      name: `p50 commit to delivery: ${who}`,
      value: median(values),
      unit: 'ms',
      target: who === 'trunkline' ? { atMost: 5 } : undefined,
    },
    { name: `p95 commit to delivery: ${who}`, value: quantile(values, 0.95), unit: 'ms' },
  ])
  return [...ratios, ...rates, ...times]
}

/** Events a second from the first to the last, of a backlog that was there before. */
async function drainRate(url: string, contender: Contender, count: number): Promise<number> {
  await withClient(url, (client) => contender.fill(client, count))
  const all = Promise.withResolvers<void>()
  let [seen, first, last] = [0, 0, 0]
  const consumer = await contender.consume(() => {
    seen += 1
    if (seen === 1) first = performance.now()
    if (seen < count) return
    last = performance.now()
    all.resolve()
  })
  try {
    await withDeadline(all.promise, `${contender.name} drains ${count} events`)
  } finally {
    await consumer.stop()
  }
  return (count - 1) / ((last - first) / 1_000)
}

/** Milliseconds from COMMIT to the handler, of events that come alone. */
async function latency(url: string, contender: Contender, samples: number): Promise<number[]> {
  let hear: ((at: number) => void) | undefined
  const consumer = await contender.consume(() => hear?.(performance.now()))
  const found: number[] = []
  try {
    await withClient(url, async (client) => {
      for (let sample = -5; sample < samples; sample += 1) {
        await delay(40 + 20 * Math.random())
        const heard = new Promise<number>((resolve) => {
          hear = resolve
        })
        await client.query('begin')
        await contender.emit(client, { sample })
        const start = performance.now()
        await client.query('commit')
        const end = await withDeadline(heard, `${contender.name} delivers one event`)
        if (sample >= 0) found.push(end - start)
      }
    })
  } finally {
    await consumer.stop()
  }
  return found
}

/** Records in one request of the client: as many as the sink sends. */
const kafkaRequestRecords = 500

/** What the relay reaches to Kafka, beside the same client publishing the same records in batches of that size from memory. */
async function kafkaShare(context: BenchmarkContext): Promise<Figure[]> {
  const broker = process.env['TRUNKLINE_TEST_KAFKA']
  if (broker === undefined) {
    context.progress('no Kafka: run .ci/provide-brokers and set TRUNKLINE_TEST_KAFKA')
    return []
  }
  const { host } = new URL(broker)
  const count = context.isQuick ? 30_000 : 200_000
  const url = await context.createDatabase()
  await using trunkline = await trunklineOn(url)
  const topic = `bench-${randomUUID()}`
  const admin = new Admin({ clientId: 'bench', bootstrapBrokers: [host], retries: 20, retryDelay: 200 })
  await admin.createTopics({ topics: [topic], partitions: 4, replicas: 1 })
  const target = `kafka://${host}/${topic}`
  const [relayed, direct]: [number[], number[]] = [[], []]
  try {
    const records = await recordsOf(url, trunkline, sinkFromUrl(target))
    // In the first round the process compiles its code, and the broker, too.
    for (let round = -1; round < (context.isQuick ? 1 : 5); round += 1) {
      const relayedRate = await kafkaRelayRate(url, trunkline, sinkFromUrl(target), count)
      const directRate = await kafkaDirectRate(host, topic, records, count)
      context.progress(`Kafka: relayed ${Math.round(relayedRate)}/s, direct ${Math.round(directRate)}/s`)
      if (round < 0) continue
      relayed.push(relayedRate)
      direct.push(directRate)
    }
  } finally {
    await admin.deleteTopics({ topics: [topic] })
    await admin.close()
  }
  return [
    {
      name: 'to Kafka: relayed / published from memory by the same client',
      value: median(relayed.map((rate, round) => rate / (direct[round] ?? 1))),
      unit: 'ratio',
      target: { atLeast: 0.5 },
    },
    { name: 'to Kafka: relayed', value: median(relayed), unit: 'per second' },
    { name: 'to Kafka: published from memory', value: median(direct), unit: 'per second' },
  ]
}

/** Deliveries that are kept, for the client alone to publish copies of. */
const recordCount = 5_000

/** What the relay sends: of a round that is not measured, since keeping it costs. */
async function recordsOf(url: string, contender: Contender, sink: Sink): Promise<readonly Delivery[]> {
  const sent: Delivery[] = []
  const recording: Sink = {
    name: sink.name,
    batchSizeMax: sink.batchSizeMax,
    ...(sink.transport !== undefined && { transport: sink.transport }),
    start: async () => sink.start(),
    stop: async () => sink.stop(),
    deliver: async (batch, signal) => {
      sent.push(...batch)
      return sink.deliver(batch, signal)
    },
  }
  await kafkaRelayRate(url, contender, recording, recordCount)
  return sent
}

async function kafkaRelayRate(url: string, contender: Contender, sink: Sink, count: number): Promise<number> {
  await withClient(url, (client) => contender.fill(client, count))
  const trunkline = createTrunkline({ url })
  const relay = trunkline.relay({ name: 'kafka', topics: ['order'], sink, format: 'cloudevents-binary' })
  const all = Promise.withResolvers<void>()
  let [seen, first, last] = [0, 0, 0]
  relay.on('delivered', () => {
    seen += 1
    if (seen === 1) first = performance.now()
    if (seen !== count) return
    last = performance.now()
    all.resolve()
  })
  await relay.start()
  await withDeadline(all.promise, 'the relay delivers to Kafka')
  await trunkline.stop()
  return (count - 1) / ((last - first) / 1_000)
}

async function kafkaDirectRate(
  host: string,
  topic: string,
  records: readonly Delivery[],
  count: number,
): Promise<number> {
  const producer = new Producer({
    clientId: 'bench',
    bootstrapBrokers: [host],
    idempotent: true,
    partitioner: (_message, key) => compatibilityPartitioner(_message, key),
  })
  const messages: MessageToProduce[] = []
  while (messages.length < count) {
    messages.push(...records.slice(0, count - messages.length).map((record) => messageOf(topic, record)))
  }
  await producer.send({ messages: messages.slice(0, 1) })
  const start = performance.now()
  for (let from = 0; from < count; from += kafkaRequestRecords) {
    await producer.send({ messages: messages.slice(from, from + kafkaRequestRecords) })
  }
  const rate = count / ((performance.now() - start) / 1_000)
  await producer.close()
  return rate
}

/** A record of its own, as in any program that has many of them. */
function messageOf(topic: string, { key, body, headers, contentType }: Delivery): MessageToProduce {
  const all = Object.entries({ 'content-type': contentType, ...headers })
  return {
    topic,
    ...(key !== null && { key: Buffer.from(key) }),
    value: Buffer.from(body),
    headers: new Map(all.map(([header, text]) => [Buffer.from(header), Buffer.from(text)])),
  }
}

/** What a delivery costs at the beginning of a small and of a large backlog, in rounds that take turns. */
async function backlogCost(context: BenchmarkContext): Promise<Figure[]> {
  const [small, large] = [10_000, context.isQuick ? 200_000 : 5_000_000]
  const stages = await Promise.all(
    [small, large].map(async (size) => ({ size, url: await context.createDatabase(), found: [] as FirstOfBacklog[] })),
  )
  for (const { size, url } of stages) {
    await fillBacklog(url, size)
    context.progress(`wrote a backlog of ${size}`)
  }
  const rounds = context.isQuick ? 3 : 9
  // In the first rounds the process compiles its code and the server reads its files.
  for (let round = -2; round < rounds; round += 1) {
    // Whoever comes second finds what the first has left behind in the process.
    for (const { url, found } of round % 2 === 0 ? stages : stages.toReversed()) {
      await untilNoAutovacuum(url)
      const first = await firstOf(url, measuredOfBacklog, round)
      if (round >= 0) found.push(first)
    }
  }
  const cost = stages.map(({ found }) => found.map(({ microseconds }) => microseconds))
  const heaps = stages.map(({ found }) => median(found.map(({ heapBytes }) => heapBytes)))
  const [atSmall = [], atLarge = []] = cost
  return [
    {
      name: `one delivery at a backlog of ${large} / of ${small}`,
      value: median(atLarge) / median(atSmall),
      unit: 'ratio',
      target: { atMost: 1.3 },
    },
    {
      name: 'most memory in use meanwhile, large backlog / small',
      value: (heaps[1] ?? 0) / (heaps[0] ?? 1),
      unit: 'ratio',
      target: { atMost: 1.3 },
    },
    ...stages.map(({ size }, n): Figure => {
      const values = cost[n] ?? []
      return {
        name: `one delivery at ${size}`,
        value: median(values),
        unit: 'us',
        spread: [Math.min(...values), Math.max(...values)],
      }
    }),
  ]
}

/** Deliveries that are timed: with what the relay reads ahead, fewer than the small backlog has. */
const measuredOfBacklog = 4_000

/** What the first deliveries of a backlog took. */
interface FirstOfBacklog {
  readonly microseconds: number
  readonly heapBytes: number
}

async function fillBacklog(url: string, size: number): Promise<void> {
  await using trunkline = await trunklineOn(url)
  void trunkline
  await withClient(url, async (client) => {
    for (let n = 0; n < size; n += 10_000) {
      await client.query(
        "select trunkline.emit('order', 'k' || n % 1000, 'placed', jsonb_build_object('n', n)) from generate_series($1::integer, $2) as n",
        [n, n + 9_999],
      )
    }
    await client.query('checkpoint')
  })
}

/** Millions of new rows are vacuumed by the server beside whatever is measured. */
async function untilNoAutovacuum(url: string): Promise<void> {
  const end = performance.now() + deadlineMs
  await withClient(url, async (client) => {
    const runs = async (): Promise<boolean> => {
      const { rowCount } = await client.query(
        "select from pg_stat_activity where backend_type = 'autovacuum worker' and datname is not null",
      )
      return rowCount !== 0
    }
    while ((await runs()) && performance.now() < end) await delay(500)
  })
}

/** The most bytes that the process's heap and buffers had, by looks every few milliseconds. */
class PeakMemory {
  #peak = 0
  readonly #timer = setInterval(() => this.#look(), 5)

  stop(): number {
    clearInterval(this.#timer)
    this.#look()
    return this.#peak
  }

  #look(): void {
    const { heapUsed, external } = process.memoryUsage()
    this.#peak = Math.max(this.#peak, heapUsed + external)
  }
}

/** A relay of a new name reads from the beginning each time. */
async function firstOf(url: string, count: number, round: number): Promise<FirstOfBacklog> {
  const memory = new PeakMemory()
  const trunkline = createTrunkline({ url })
  const enough = Promise.withResolvers<void>()
  let [seen, first, last] = [0, 0, 0]
  const sink = new NothingSink(() => {
    seen += 1
    if (seen === 1) first = performance.now()
    if (seen !== count) return
    last = performance.now()
    enough.resolve()
  })
  await trunkline.relay({ name: `round ${round + 2}`, topics: ['order'], sink }).start()
  await withDeadline(enough.promise, 'the relay delivers')
  await trunkline.stop()
  return { microseconds: ((last - first) * 1_000) / (count - 1), heapBytes: memory.stop() }
}

async function withDeadline<Value>(promise: Promise<Value>, what: string): Promise<Value> {
  const controller = new AbortController()
  const late = delay(deadlineMs, undefined, { signal: controller.signal, ref: false }).then(() => {
    throw new Error(`Expected that within ${deadlineMs} ms ${what}.`)
  })
  late.catch(() => undefined)
  try {
    return await Promise.race([promise, late])
  } finally {
    controller.abort()
  }
}
