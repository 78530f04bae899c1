import { dumbo } from '@event-driven-io/dumbo'
import type { Event } from '@event-driven-io/emmett'
import { getPostgreSQLEventStore, readMessagesBatch } from '@event-driven-io/emmett-postgresql'
import pg from 'pg'
import {
  clients,
  type Contender,
  Counter,
  countRows,
  eventType,
  type Fold,
  type Item,
  pageSize,
  streamsOf,
} from './contender.ts'

type ItemAdded = Event<typeof eventType, Item>

/** Emmett 0.42.0. It needs PostgreSQL 13 (xid8). */
export async function emmettOn(url: string): Promise<Contender> {
  const pool = new pg.Pool({ connectionString: url, max: clients })
  const store = getPostgreSQLEventStore(url, { connectionOptions: { pool }, schema: { autoMigration: 'None' } })
  await store.schema.migrate()
  const reader = dumbo({ connectionString: url })
  let followers = 0

  async function replay(): Promise<Fold> {
    const counter = new Counter()
    for (let after = 0n; ;) {
      // The query of its consumer, and its step to the next page.
      const page = await readMessagesBatch<ItemAdded>(reader.execute, { after, batchSize: pageSize })
      for (const { data } of page.messages) counter.add(data)
      if (!page.areMessagesLeft) return counter.fold
      after = page.currentGlobalPosition
    }
  }

  async function follow(): Promise<Fold> {
    const counter = new Counter()
    const consumer = store.consumer<ItemAdded>({
      stopWhen: { noMessagesLeft: true },
      // By default it rests for 50 ms after each page.
      pulling: { batchSize: pageSize, pullingFrequencyInMs: 0 },
    })
    consumer.reactor<ItemAdded>({
      processorId: `bench-${(followers += 1)}`,
      startFrom: 'BEGINNING',
      eachMessage: ({ data }) => counter.add(data),
    })
    await consumer.start()
    await consumer.close()
    return counter.fold
  }

  async function append(stream: string, version: number, items: readonly Item[]): Promise<void> {
    const events = items.map((data): ItemAdded => ({ type: eventType, data }))
    await store.appendToStream<ItemAdded>(stream, events, { expectedStreamVersion: BigInt(version) })
  }

  return {
    name: 'Emmett',
    append,
    fill: async (category, from, to) => {
      for (const { stream, items } of streamsOf(category, from, to)) await append(stream, 0, items)
      await pool.query('vacuum analyze emt_messages')
    },
    load: async (stream) => {
      const counter = new Counter()
      const { events } = await store.readStream<ItemAdded>(stream)
      for (const { data } of events) counter.add(data)
      return counter.fold
    },
    replay,
    follow,
    stored: async () => countRows(pool, 'emt_messages'),
    [Symbol.asyncDispose]: async () => {
      await reader.close()
      await store.close()
      await pool.end()
    },
  }
}
