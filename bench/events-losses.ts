import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { emmettLossSubject } from './event-stores/emmett-losses.ts'
import type { LossSubject, Seen } from './event-stores/loss-subject.ts'
import { trunklineLossSubject } from './event-stores/trunkline-losses.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'

export const name = 'events-losses'
export const summary =
  'what a consumer of the event store gets of 24 concurrent writers, beside Emmett 0.42: lost, doubled, out of order'

const writers = 24
const streams = 200
/** Without a new event for so long, in milliseconds, a consumer has got what it will get. */
const silenceMs = 5_000

/** What the writers do. */
interface Campaign {
  readonly name: string
  /** Does one transaction; returns what it committed. */
  readonly act: (subject: LossSubject, random: () => number) => Promise<number>
}

const campaigns: readonly Campaign[] = [
  {
    name: 'appends alone',
    act: async (subject, random) => {
      const count = 1 + Math.floor(3 * random())
      await subject.append(streamName(random), count)
      return count
    },
  },
  { name: 'transactions', act: transaction },
]

function streamName(random: () => number): string {
  return `order-${Math.floor(streams * random())}`
}

/** Often takes its xid long before it appends, appends to up to four streams with pauses between, and sometimes rolls back. */
async function transaction(subject: LossSubject, random: () => number): Promise<number> {
  const client = await subject.pool.connect()
  try {
    return await subject.retried(async () => appendToSeveral(subject, client, random))
  } finally {
    client.release()
  }
}

async function appendToSeveral(subject: LossSubject, client: pg.PoolClient, random: () => number): Promise<number> {
  await client.query('begin')
  try {
    if (random() < 0.5) {
      await client.query('insert into early default values')
      await pause(20 * random())
    }
    // In one order, so that no two wait for each other.
    const touched = new Set(Array.from({ length: 1 + Math.floor(4 * random()) }, () => streamName(random)))
    let count = 0
    for (const stream of [...touched].toSorted()) {
      const events = 1 + Math.floor(3 * random())
      await subject.appendIn(client, stream, events)
      count += events
      if (random() < 0.3) await pause(5 * random())
    }
    const isCommitted = random() > 0.1
    await client.query(isCommitted ? 'commit' : 'rollback')
    return isCommitted ? count : 0
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}

/** What one consumer got. */
class Receipt {
  readonly #seen = new Set<string>()
  readonly #versions = new Map<string, number>()
  doubled = 0
  outOfOrder = 0
  lastAt: number = performance.now()

  take({ id, stream, version }: Seen): void {
    this.lastAt = performance.now()
    if (this.#seen.has(id)) {
      this.doubled += 1
      return
    }
    this.#seen.add(id)
    const highest = this.#versions.get(stream) ?? 0
    if (version < highest) this.outOfOrder += 1
    this.#versions.set(stream, Math.max(highest, version))
  }

  get count(): number {
    return this.#seen.size
  }

  lost(stored: readonly string[]): number {
    return stored.filter((id) => !this.#seen.has(id)).length
  }
}

/** The same writers for each store, with one consumer that reads all the time, and one that reads everything when all is quiet. */
export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const figures: Figure[] = []
  for (const campaign of campaigns) {
    for (const open of [trunklineLossSubject, emmettLossSubject]) {
      // It needs xid8, which a server has from 13 on.
      if (open === emmettLossSubject && context.version === '12') continue
      await using subject = await open(await context.createDatabase())
      await subject.pool.query('create table early (id bigserial)')
      figures.push(...(await runCampaign(context, campaign, subject)))
    }
  }
  return figures
}

async function runCampaign(context: BenchmarkContext, campaign: Campaign, subject: LossSubject): Promise<Figure[]> {
  const wanted = context.isQuick ? 2_000 : 20_000
  const live = new Receipt()
  const consumer = await subject.follow((seen) => live.take(seen))
  let committed = 0
  await Promise.all(
    Array.from({ length: writers }, async (_, writer) => {
      const random = randomFrom(1 + writer)
      while (committed < wanted) {
        const count = await campaign.act(subject, random)
        committed += count
      }
    }),
  )
  const stored = await subject.storedIds()
  if (stored.length !== committed)
    throw new Error(`${subject.name} has ${stored.length} events, and confirmed ${committed}.`)
  await untilSilent(live, stored.length)
  await consumer.stop()
  const replay = new Receipt()
  const replayer = await subject.follow((seen) => replay.take(seen))
  await untilSilent(replay, stored.length)
  await replayer.stop()
  const figures = [
    ...figuresOf(`${campaign.name}, ${subject.name}, live`, { receipt: live, stored, isOwn: subject.isOwn }),
    ...figuresOf(`${campaign.name}, ${subject.name}, replay`, { receipt: replay, stored, isOwn: subject.isOwn }),
  ]
  for (const { name: what, value } of figures) context.progress(`${what}: ${value}`)
  return figures
}

async function untilSilent(receipt: Receipt, count: number): Promise<void> {
  receipt.lastAt = performance.now()
  while (receipt.count < count && performance.now() - receipt.lastAt < silenceMs) await pause(20)
  // What comes twice may come after the last.
  await pause(500)
}

function figuresOf(
  title: string,
  {
    receipt,
    stored,
    isOwn,
  }: { readonly receipt: Receipt; readonly stored: readonly string[]; readonly isOwn: boolean },
): Figure[] {
  const target = isOwn ? { atMost: 0 } : undefined
  return [
    { name: `${title}: stored`, value: stored.length, unit: 'count' },
    { name: `${title}: delivered`, value: receipt.count, unit: 'count' },
    { name: `${title}: lost`, value: receipt.lost(stored), unit: 'count', target },
    { name: `${title}: delivered again`, value: receipt.doubled, unit: 'count', target },
    { name: `${title}: out of order within a stream`, value: receipt.outOfOrder, unit: 'count', target },
  ]
}

/** Mulberry32: the same plans for every store. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d_2b_79_f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
