import type pg from 'pg'
import type { EventStore, NewEvent } from '../../src/index.ts'
import { backendPid, type TestDatabase } from '../support/index.ts'

/** Numbers from 0 to 1 that a seed decides. */
export function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) % 2 ** 32
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export interface Workload {
  readonly database: TestDatabase
  readonly events: EventStore
  readonly writers: number
  /** Ends when so many events have been written, committed or not. */
  readonly eventsMax: number
  readonly random: () => number
}

const streamsMax = 40

/** Runs writers at once that append in every way there is; resolves when all have ended. Gives how often each way was gone. */
export async function write({
  database,
  events,
  writers,
  eventsMax,
  random,
}: Workload): Promise<Record<string, number>> {
  const gone: Record<string, number> = {}
  let written = 0
  const run = async (writer: number): Promise<void> => {
    const client = await database.connect()
    const pid = await backendPid(client)
    const ways = waysOf({ client, events, random, prepare: (step) => `w${pid}-${writer}-${step}` })
    const names = Object.keys(ways)
    while (written < eventsMax) {
      const name = names[Math.floor(random() * names.length)]!
      const count = (await ways[name]?.()) ?? 0
      written += count
      gone[name] = (gone[name] ?? 0) + 1
    }
    await client.end()
  }
  await Promise.all(Array.from({ length: writers }, (_, writer) => run(writer)))
  return gone
}

/** Nothing was written, for one of these reasons. */
function unless(...codes: readonly string[]): (error: unknown) => number {
  return (error) => {
    if (codes.includes((error as { code?: string }).code ?? '')) return 0
    throw error
  }
}

interface Tools {
  readonly client: pg.Client
  readonly events: EventStore
  readonly random: () => number
  readonly prepare: (step: number) => string
}

/** Each gives how many events it wrote. */
function waysOf({ client, events, random, prepare }: Tools): Record<string, () => Promise<number>> {
  let steps = 0
  const stream = (): string => `s${Math.floor(random() * 3)}-${Math.floor(random() * streamsMax)}`
  const list = (): NewEvent[] =>
    Array.from({ length: 1 + Math.floor(random() ** 3 * 5) }, () => ({ type: 'happened', payload: { n: random() } }))
  const rest = async (): Promise<void> => {
    await client.query(`select pg_sleep(${(random() ** 4 * 0.03).toFixed(4)})`)
  }
  const append = async (to: string, expected: 'any' | number = 'any'): Promise<number> => {
    const batch = list()
    await events.append(to, expected, batch, { tx: client })
    return batch.length
  }
  /** A transaction that deadlocks or conflicts is one that rolled back. */
  const within = async (run: () => Promise<number>, end: 'commit' | 'rollback' | 'prepare'): Promise<number> => {
    await client.query('begin')
    try {
      const count = await run()
      await rest()
      if (end !== 'prepare') await client.query(end)
      else await endPrepared()
      return count
    } catch (error) {
      const { code } = error as { code?: string }
      if (code !== 'version_conflict' && code !== 'deadlock') throw error
      await client.query('rollback')
      return 0
    }
  }
  const endPrepared = async (): Promise<void> => {
    steps += 1
    const name = prepare(steps)
    await client.query(`prepare transaction '${name}'`)
    await rest()
    await client.query(`${random() < 0.7 ? 'commit' : 'rollback'} prepared '${name}'`)
  }
  const several = async (): Promise<number> => {
    let count = 0
    for (const to of new Set([stream(), stream(), stream()].toSorted())) {
      count += await append(to)
      await rest()
    }
    return count
  }
  return {
    // In a queue that others deadlock in, it may be the one who is told.
    plain: () => append(stream()).catch(unless('deadlock')),
    expecting: async () => {
      const to = stream()
      const [last] = await events.read(to, { direction: 'backward', limit: 1, tx: client })
      return append(to, last?.version ?? 0).catch(unless('version_conflict', 'deadlock'))
    },
    earlyXid: () =>
      within(async () => {
        await client.query('select txid_current()')
        await rest()
        return append(stream())
      }, 'commit'),
    several: () => within(several, 'commit'),
    rolledBack: () => within(several, 'rollback'),
    savepoint: () =>
      within(async () => {
        const before = await append(stream())
        await client.query('savepoint here')
        await append(stream())
        await client.query('rollback to here')
        return before + (await append(stream()))
      }, 'commit'),
    prepared: () => within(several, 'prepare'),
  }
}
