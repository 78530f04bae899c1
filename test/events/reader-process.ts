/**
 * A process that copies all events to the table `copied` in settled order, with its checkpoint in the same transaction, until it
 * is killed. Argument: its options as JSON.
 */
import pg from 'pg'
import { createTrunkline } from '../../src/index.ts'

export interface ReaderProcessOptions {
  readonly url: string
}

const { url } = JSON.parse(process.argv[2] ?? '') as ReaderProcessOptions
const trunkline = createTrunkline({ url, pollIntervalMs: 20 })
const client = new pg.Client({ connectionString: url })
await client.connect()
const reader = trunkline.events.settledReader()
const waiter = trunkline.events.signal.subscribe()
for (;;) {
  const { rows } = await client.query<{ position: string }>('select position::text from checkpoint')
  const page = await reader.next(BigInt(rows[0]?.position ?? 0), 1 + Math.floor(Math.random() * 200))
  await client.query('begin')
  for (const event of page.events) await client.query('insert into copied (position) values ($1)', [event.position])
  await client.query('update checkpoint set position = $1', [page.upTo.toString()])
  await client.query('commit')
  if (!page.hasMore) await waiter.wait()
}
