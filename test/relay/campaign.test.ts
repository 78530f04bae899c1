import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { install } from '../log/captured.ts'
import {
  createDatabase,
  describeEachVersion,
  eventually,
  lacksKafka,
  lacksMosquitto,
  lacksNats,
  lacksRabbitMq,
  lacksRedis,
  type OwnCluster,
  ownCluster,
  startTcpProxy,
  type TcpProxy,
  type TestDatabase,
} from '../support/index.ts'
import { pace, prepareArrivals, type RelayProcess, startRelayProcess, Writers } from './processes.ts'
import { openFile } from './receivers/file.ts'
import { openKafka } from './receivers/kafka.ts'
import { openMqtt } from './receivers/mqtt.ts'
import { openNats } from './receivers/nats.ts'
import { openRabbitMq } from './receivers/rabbitmq.ts'
import { type Arrived, type Receiver, toArrived } from './receivers/receiver.ts'
import { openRedis } from './receivers/redis.ts'
import { openWebhook } from './receivers/webhook.ts'
import type { RelayProcessOptions } from './relay-process.ts'
import { open } from './relaying.ts'

/** How often a relay is killed for each sink; every fifth time something else breaks beside. The whole campaign has 50. */
const kills = Number(process.env['TRUNKLINE_TEST_FAULTS'] ?? 2)
const writerCount = 16
const keyCount = 40
/** Arrivals that show that it goes on. */
const someArrivals = 50

const sinks = [
  { name: 'file', lacks: () => false, openReceiver: openFile },
  { name: 'webhook', lacks: () => false, openReceiver: openWebhook },
  { name: 'redis', lacks: lacksRedis, openReceiver: openRedis },
  { name: 'nats', lacks: lacksNats, openReceiver: openNats },
  { name: 'mqtt', lacks: lacksMosquitto, openReceiver: openMqtt },
  { name: 'rabbitmq', lacks: lacksRabbitMq, openReceiver: openRabbitMq },
  { name: 'kafka', lacks: lacksKafka, openReceiver: openKafka },
]

interface Stage {
  readonly cluster: OwnCluster
  readonly proxy: TcpProxy
  readonly receiver: Receiver
  readonly options: RelayProcessOptions
  readonly processes: RelayProcess[]
}

/** What breaks beside the processes, in turn. */
const faults: readonly ((stage: Stage) => Promise<void>)[] = [
  async ({ receiver }) => {
    await receiver.server?.stop()
    await delay(Math.random() * 1_000)
    await receiver.server?.start()
  },
  async ({ cluster }) => {
    await cluster.postgres.stop('immediate')
    await cluster.postgres.start()
  },
  async ({ receiver }) => {
    await receiver.proxy?.cut()
    await delay(Math.random() * 1_000)
    await receiver.proxy?.resume()
  },
  async ({ proxy }) => {
    await proxy.cut()
    await delay(Math.random() * 2_000)
    await proxy.resume()
  },
]

describeEachVersion('relay: a campaign of faults', (version) => {
  test.for(sinks)(
    'to $name: nothing lost, nothing out of order, repeated only around a fault and never behind the inbox',
    { timeout: 180_000 + kills * 30_000, retry: 0 },
    async ({ name, lacks, openReceiver }, { skip }) => {
      if (lacks()) skip()
      await using cluster = await ownCluster(version)
      await using database = await createDatabase(cluster.server)
      await install(database.url)
      await prepareArrivals(database, keyCount)
      await using proxy = await startTcpProxy(database.url)
      await using receiver = await openReceiver()
      const options = {
        url: proxy.through(database.url),
        arrivalUrl: database.url,
        sinkUrl: receiver.sinkUrl,
        relay: { name: 'campaign', topics: ['order'], leaseMs: 1_200, checkpointIntervalMs: 50, retryFirstMs: 50 },
      }
      const processes = [await startRelayProcess(options), await startRelayProcess(options)]
      const stage: Stage = { cluster, proxy, receiver, options, processes }
      const writers = new Writers(database.url, writerCount, 100)
      const pacing = pace(writers, database, () => receiver.count())

      await untilMoreArrive(stage, 'the start')
      await untilMoreArrive(stage, 'the start', 10 * someArrivals)
      expect(verdict(await eventsOf(database), await arrivedAt(receiver)).repeated).toBe(0)
      for (let kill = 0; kill < kills; kill += 1) await breakSomething(stage, kill)
      await writers.stop()
      await pacing.stop()
      const before = verdict(await eventsOf(database), await untilAllArrived(database, receiver))
      tellMissing(before)
      expect(before).toMatchObject({ lost: 0, invented: 0, outOfOrder: 0 })

      // Without a fault nothing is repeated.
      const quiet = new Writers(database.url, writerCount, 100)
      await untilMoreArrive(stage, 'the last fault', 10 * someArrivals)
      await quiet.stop()
      const arrived = await untilAllArrived(database, receiver)
      const after = verdict(await eventsOf(database), arrived)
      tellMissing(after)
      expect(after).toMatchObject({ lost: 0, invented: 0, outOfOrder: 0, repeated: before.repeated })
      expect(
        await database.query("select error_code, state from trunkline.failed_delivery where state = 'dead'"),
      ).toEqual([])
      expect(await handledOnce(database, arrived)).toBe(after.events)
      process.stderr.write(`campaign ${name}, PostgreSQL ${version}, ${kills} kills: ${JSON.stringify(after)}\n`)

      for (const child of processes) {
        child.kill('SIGTERM')
        await child.ended()
      }
      expect(await database.query('select from trunkline.relay_slot where owner is not null')).toEqual([])
    },
  )
})

/** Kills one of the two relays at a random moment and starts another, which takes keys from the one that lives. */
async function breakSomething(stage: Stage, turn: number): Promise<void> {
  const { processes, options } = stage
  await delay(Math.random() * 1_000)
  processes.shift()!.kill('SIGKILL')
  processes.push(await startRelayProcess(options))
  if (kills < 10 || turn % 5 === 4) {
    const fault = faults[Math.floor(kills < 10 ? turn : turn / 5) % faults.length]!
    await fault(stage)
  }
  await untilMoreArrive(stage, `fault ${turn + 1}`)
}

async function untilMoreArrive({ receiver }: Stage, what: string, more = someArrivals): Promise<void> {
  let before: number | undefined
  await eventually(
    async () => {
      const count = await receiver.count()
      before ??= count
      return count - before > more
    },
    { what: `after ${what} events arrive again`, timeoutMs: 60_000, intervalMs: 50 },
  )
}

/** The committed events: key and number by message id. */
async function eventsOf(database: TestDatabase): Promise<ReadonlyMap<string, Arrived>> {
  const events = await database.query<{ id: string; key: string; n: number }>(
    `select trunkline.message_id(l.id, l.xid, l.created_at) as id, l.key, (l.payload ->> 'n')::integer as n
     from trunkline.log as l where l.operation = 'e'`,
  )
  return new Map(events.map((event) => [event.id, event]))
}

async function arrivedAt(receiver: Receiver): Promise<readonly Arrived[]> {
  return (await receiver.bodies()).map(toArrived)
}

/** Waits for the last one as long as any come; what is lost shows in the verdict. */
async function untilAllArrived(database: TestDatabase, receiver: Receiver): Promise<readonly Arrived[]> {
  let arrived: readonly Arrived[] = []
  let before = -1
  const events = await eventsOf(database)
  while (arrived.length > before && verdict(events, arrived).lost > 0) {
    before = arrived.length
    await eventually(
      async () => {
        arrived = await arrivedAt(receiver)
        return arrived.length > before && verdict(events, arrived).lost === 0
      },
      { what: 'all events arrive', timeoutMs: 90_000, intervalMs: 500 },
    ).catch(() => undefined)
  }
  return arrived
}

interface Verdict {
  readonly events: number
  readonly arrivals: number
  /** Committed and not arrived. */
  readonly lost: number
  readonly missing: readonly Arrived[]
  /** Arrived and never committed, or another than was written. */
  readonly invented: number
  /** First arrivals behind one of a later event of their key. */
  readonly outOfOrder: number
  readonly repeated: number
}

function verdict(events: ReadonlyMap<string, Arrived>, arrived: readonly Arrived[]): Verdict {
  const seen = new Set<string>()
  const lastOf = new Map<string, number>()
  let [invented, outOfOrder] = [0, 0]
  for (const { id, key, n } of arrived) {
    if (seen.has(id)) continue
    seen.add(id)
    const event = events.get(id)
    if (event?.key !== key || event.n !== n) invented += 1
    if (n <= (lastOf.get(key) ?? 0)) outOfOrder += 1
    lastOf.set(key, Math.max(n, lastOf.get(key) ?? 0))
  }
  const missing = [...events.values()].filter(({ id }) => !seen.has(id))
  return {
    events: events.size,
    arrivals: arrived.length,
    lost: missing.length,
    missing,
    invented,
    outOfOrder,
    repeated: arrived.length - seen.size,
  }
}

/** Which ones: a count alone cannot be looked into. */
function tellMissing({ missing }: Verdict): void {
  for (const { id, key, n } of missing.slice(0, 20))
    process.stderr.write(`missing: ${key} number ${n}, message ${id}\n`)
}

/** How many a consumer with an inbox handles of all that arrived. */
async function handledOnce(database: TestDatabase, arrived: readonly Arrived[]): Promise<number> {
  const { inbox } = open(database.url)
  const consumer = await database.connect()
  let handled = 0
  for (let from = 0; from < arrived.length; from += 500) {
    await consumer.query('begin')
    for (const { id } of arrived.slice(from, from + 500)) {
      await inbox.once(consumer, 'campaign', id, () => (handled += 1))
    }
    await consumer.query('commit')
  }
  return handled
}
