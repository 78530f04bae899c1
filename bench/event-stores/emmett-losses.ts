import { randomUUID } from 'node:crypto'
import { type Event, NO_CONCURRENCY_CHECK } from '@event-driven-io/emmett'
import { defaultTag, getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql'
import pg from 'pg'
import { eventType, type Item, itemOf } from './contender.ts'
import type { LossSubject } from './loss-subject.ts'

type ItemAdded = Event<typeof eventType, Item>

/** Somebody else was faster. */
class Conflict extends Error {}

/** As its users must: a conflict is an error also where no version was expected. */
async function retried<Result>(action: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await action()
    } catch (error) {
      const { errorCode, code } = error as { errorCode?: number; code?: string }
      if (!(error instanceof Conflict) && errorCode !== 412 && code !== '23505') throw error
    }
  }
}

/** Emmett 0.42.0, with the consumer of its documentation. */
export async function emmettLossSubject(url: string): Promise<LossSubject> {
  const pool = new pg.Pool({ connectionString: url, max: 24 })
  const store = getPostgreSQLEventStore(url, { connectionOptions: { pool }, schema: { autoMigration: 'None' } })
  await store.schema.migrate()
  let consumers = 0

  return {
    name: 'Emmett',
    isOwn: false,
    pool,
    append: async (stream, count) => {
      const events = Array.from({ length: count }, (_, n): ItemAdded => ({ type: eventType, data: itemOf(n) }))
      await retried(async () => store.appendToStream(stream, events, { expectedStreamVersion: NO_CONCURRENCY_CHECK }))
    },
    appendIn: async (client, stream, count) => {
      const all = (value: unknown): unknown[] => Array.from({ length: count }, () => value)
      // The function that appendToStream calls; that one always commits by itself.
      const { rows } = await client.query<{ success: boolean }>({
        name: 'append',
        text: 'select success from emt_append_to_stream($1, $2, $3, $4, $5, $6, $7, $8, null, $9)',
        values: [
          all(0).map(() => randomUUID()),
          all(0).map((_, n) => JSON.stringify(itemOf(n))),
          all('{}'),
          all('1'),
          all(eventType),
          all('E'),
          stream,
          'order',
          defaultTag,
        ],
      })
      if (rows[0]?.success !== true) throw new Conflict()
    },
    retried,
    follow: async (onEvent) => {
      const consumer = store.consumer<ItemAdded>({ pulling: { batchSize: 100 } })
      consumer.reactor<ItemAdded>({
        processorId: `losses-${(consumers += 1)}`,
        startFrom: 'BEGINNING',
        eachMessage: ({ metadata: { messageId, streamName, streamPosition } }) =>
          onEvent({ id: messageId, stream: streamName, version: Number(streamPosition) }),
      })
      const ended = consumer.start()
      return {
        stop: async () => {
          await consumer.close()
          await ended
        },
      }
    },
    storedIds: async () => {
      const { rows } = await pool.query<{ message_id: string }>('select message_id from emt_messages')
      return rows.map(({ message_id: id }) => id)
    },
    [Symbol.asyncDispose]: async () => {
      await store.close()
      await pool.end()
    },
  }
}
