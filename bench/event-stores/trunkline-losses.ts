import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { createTrunkline } from '../../src/index.ts'
import { eventType, itemOf } from './contender.ts'
import type { LossSubject } from './loss-subject.ts'

function items(count: number): { type: string; payload: unknown }[] {
  return Array.from({ length: count }, (_, n) => ({ type: eventType, payload: itemOf(n) }))
}

/** Ours, with `readAll` from where the reader was. */
export async function trunklineLossSubject(url: string): Promise<LossSubject> {
  const pool = new pg.Pool({ connectionString: url, max: 24 })
  const trunkline = createTrunkline({ pool })
  await trunkline.migrate()
  const { events } = trunkline

  return {
    name: 'trunkline',
    isOwn: true,
    pool,
    append: async (stream, count) => {
      await events.append(stream, 'any', items(count))
    },
    appendIn: async (client, stream, count) => {
      await events.append(stream, 'any', items(count), { tx: client })
    },
    // Without an expected version there is no conflict.
    retried: async (action) => action(),
    follow: async (onEvent) => {
      const stopping = new AbortController()
      const following = (async (): Promise<void> => {
        let after = '0'
        while (!stopping.signal.aborted) {
          for await (const { position, id, stream, version } of events.readAll({ after })) {
            onEvent({ id, stream, version })
            after = position
          }
          await pause(5)
        }
      })()
      return Promise.resolve({
        stop: async () => {
          stopping.abort()
          await following
        },
      })
    },
    storedIds: async () => {
      const { rows } = await pool.query<{ id: string }>('select id from trunkline.event')
      return rows.map(({ id }) => id)
    },
    [Symbol.asyncDispose]: async () => {
      await trunkline.stop()
      await pool.end()
    },
  }
}
