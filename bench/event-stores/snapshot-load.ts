import { setTimeout as pause } from 'node:timers/promises'
import { createTrunkline } from '../../src/index.ts'
import type { BenchmarkContext, Figure } from '../support/benchmark.ts'
import { median, ratios, spread } from '../support/statistics.ts'
import { eventType, type Item, itemOf } from './contender.ts'

/** Loads of one round. */
const loads = 50

/** A load from an aggregate snapshot: of a short stream and of a long one, in turns, nothing kept in memory. */
export async function snapshotLoad({ createDatabase, isQuick, progress }: BenchmarkContext): Promise<Figure[]> {
  await using trunkline = createTrunkline({ url: await createDatabase() })
  await trunkline.migrate()
  const { events, pool } = trunkline
  const [short, long] = [100, isQuick ? 5_000 : 100_000]
  const orders = events.aggregate({
    type: 'order',
    initialState: { quantity: 0 },
    evolve: (state: { quantity: number }, { payload }: { type: typeof eventType; payload: Item }) => ({
      quantity: state.quantity + payload.quantity,
    }),
    snapshotEvery: 100,
    hotMax: 0,
  })
  for (const count of [short, long]) {
    for (let version = 0; version < count; version += 100) {
      const items = Array.from({ length: 100 }, (_, place) => ({ type: eventType, payload: itemOf(version + place) }))
      await events.append(`order-${count}`, version, items)
    }
    await orders.load(String(count))
  }
  // They are stored in the background.
  const stored = 'select count(*)::integer as count from trunkline.aggregate_snapshot'
  while ((await pool.query<{ count: number }>(stored)).rows[0]?.count !== 2) await pause(20)
  await pool.query('vacuum analyze trunkline.event')
  const [ofShort, ofLong]: [number[], number[]] = [[], []]
  for (let round = -2; round < (isQuick ? 3 : 15); round += 1) {
    for (const [count, times] of round % 2 === 0
      ? [[short, ofShort] as const, [long, ofLong] as const]
      : [[long, ofLong] as const, [short, ofShort] as const]) {
      const begun = performance.now()
      for (let load = 0; load < loads; load += 1) {
        const { version, state } = await orders.load(String(count))
        if (version !== count || state.quantity !== 3 * count) throw new Error(`Loaded ${version} events of ${count}.`)
      }
      if (round >= 0) times.push((performance.now() - begun) / loads)
    }
  }
  progress(
    `load with a snapshot: ${median(ofShort).toFixed(2)} ms of ${short}, ${median(ofLong).toFixed(2)} ms of ${long}`,
  )
  const against = ratios(ofLong, ofShort)
  return [
    {
      name: `load with an aggregate snapshot: of ${long.toLocaleString('en')} events / of ${short}`,
      value: median(against),
      unit: 'ratio',
      spread: spread(against),
      target: { atMost: 1.3 },
    },
    { name: `  of ${short}`, value: median(ofShort), unit: 'ms', spread: spread(ofShort) },
    { name: `  of ${long.toLocaleString('en')}`, value: median(ofLong), unit: 'ms', spread: spread(ofLong) },
  ]
}
