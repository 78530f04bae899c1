import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import pg from 'pg'
import { withClient } from '../support/server.ts'
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

/** In the order of its install.sh, which needs psql. */
const files = [
  'roles/message-store',
  'schema/message-store',
  'extensions/pgcrypto',
  'tables/messages',
  'types/message',
  'functions/message-store-version',
  'functions/hash-64',
  'functions/acquire-lock',
  'functions/category',
  'functions/is-category',
  'functions/id',
  'functions/cardinal-id',
  'functions/stream-version',
  'functions/write-message',
  'functions/get-stream-messages',
  'functions/get-category-messages',
  'functions/get-last-stream-message',
  'indexes/messages-id',
  'indexes/messages-stream',
  'indexes/messages-category',
]

interface Message {
  readonly global_position: string
  readonly data: string
}

async function install(url: string): Promise<void> {
  const directory = new URL('database/', import.meta.resolve('@eventide/message-db/package.json'))
  await withClient(url, async (client) => {
    await client.query('set search_path = message_store, public')
    for (const file of files) await client.query(await readFile(new URL(`${file}.sql`, directory), 'utf8'))
  })
}

/** Message DB 1.3.1, called over `pg` with prepared statements. It has neither batches nor consumers. */
export async function messageDbOn(url: string): Promise<Contender> {
  await install(url)
  // Its functions name their tables without a schema.
  const options = '-c search_path=message_store,public'
  const pool = new pg.Pool({ connectionString: url, max: clients, options })

  async function replay(category: string): Promise<Fold> {
    const counter = new Counter()
    for (let position = '1'; ;) {
      const { rows } = await pool.query<Message>({
        name: 'category',
        text: 'select * from get_category_messages($1, $2, $3)',
        values: [category, position, pageSize],
      })
      for (const { data } of rows) counter.add(JSON.parse(data) as Item)
      if (rows.length < pageSize) return counter.fold
      position = String(BigInt(rows.at(-1)?.global_position ?? 0) + 1n)
    }
  }

  return {
    name: 'Message DB',
    append: async (stream, version, items) => {
      const [first] = items
      if (first !== undefined && items.length === 1) {
        await pool.query({
          name: 'write',
          text: 'select write_message($1, $2, $3, $4, null, $5)',
          values: [randomUUID(), stream, eventType, JSON.stringify(first), version - 1],
        })
        return
      }
      // A call an event, but all of them in one round trip and one transaction.
      await pool.query({
        name: 'write-all',
        text: `select write_message(id, $2, $3, data::jsonb, null, $5 + n - 2)
          from unnest($1::varchar[], $4::text[]) with ordinality as item (id, data, n) order by n`,
        values: [items.map(() => randomUUID()), stream, eventType, items.map((item) => JSON.stringify(item)), version],
      })
    },
    fill: async (category, from, to) => {
      for (const { stream, items } of streamsOf(category, from, to)) {
        // Past its function, which would take minutes for a million.
        await pool.query({
          name: 'fill',
          text: `insert into messages (stream_name, position, type, data)
            select $1, n - 1, $2, data::jsonb from unnest($3::text[]) with ordinality as item (data, n) order by n`,
          values: [stream, eventType, items.map((item) => JSON.stringify(item))],
        })
      }
      await pool.query('vacuum analyze messages')
    },
    load: async (stream) => {
      const counter = new Counter()
      const { rows } = await pool.query<Message>({
        name: 'stream',
        text: 'select * from get_stream_messages($1, 0, -1)',
        values: [stream],
      })
      for (const { data } of rows) counter.add(JSON.parse(data) as Item)
      return counter.fold
    },
    replay,
    follow: undefined,
    stored: async () => countRows(pool, 'messages'),
    [Symbol.asyncDispose]: () => pool.end(),
  }
}
