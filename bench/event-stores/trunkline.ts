import pg from 'pg'
import { createTrunkline } from '../../src/index.ts'
import { clients, type Contender, Counter, countRows, eventType, type Fold, type Item, streamsOf } from './contender.ts'

/** Ours. */
export async function trunklineOn(url: string): Promise<Contender> {
  const pool = new pg.Pool({ connectionString: url, max: clients })
  const trunkline = createTrunkline({ pool })
  await trunkline.migrate()
  const { events } = trunkline

  async function append(stream: string, version: number, items: readonly Item[]): Promise<void> {
    await events.append(
      stream,
      version,
      items.map((payload) => ({ type: eventType, payload })),
    )
  }

  async function replay(): Promise<Fold> {
    const counter = new Counter()
    for await (const page of events.readAll().pages()) for (const { payload } of page) counter.add(payload as Item)
    return counter.fold
  }

  return {
    name: 'trunkline',
    append,
    fill: async (category, from, to) => {
      for (const { stream, items } of streamsOf(category, from, to)) await append(stream, 0, items)
      await pool.query('vacuum analyze trunkline.event')
    },
    load: async (stream) => {
      const counter = new Counter()
      for (const { payload } of await events.read(stream)) counter.add(payload as Item)
      return counter.fold
    },
    replay,
    follow: undefined,
    stored: async () => countRows(pool, 'trunkline.event'),
    [Symbol.asyncDispose]: async () => {
      await trunkline.stop()
      await pool.end()
    },
  }
}
