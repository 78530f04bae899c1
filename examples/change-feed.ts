/**
 * Follows a captured table and writes its changes as Debezium would: envelopes with before, after and op, keyed by the primary
 * key. Run it against any PostgreSQL from 12 on, with nothing but a role that may create triggers:
 *
 *     DATABASE_URL=postgres://owner:secret@localhost:5432/shop SINK=stdout: node examples/change-feed.ts
 *
 * SINK may as well be file:feed.ndjson or kafka://localhost:9092. It is the shortest feed there is, and begins anew at each start;
 * a relay keeps its place, shares the work among processes and sets failures aside.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { LogReader, createFormat, createTrunkline, sinkFromUrl } from '../src/index.ts'

const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
await trunkline.migrate()
await trunkline.pool.query(
  'create table if not exists account (id bigint primary key, owner text not null, balance numeric)',
)
await trunkline.capture('account')

const sink = sinkFromUrl(process.env['SINK'] ?? 'stdout:')
const format = createFormat('debezium', { transport: sink.transport, topicPrefix: 'shop' })
const reader = await LogReader.open(trunkline.pool, { from: 'now', tables: ['account'], decoding: 'json' })
await sink.start()
console.error(`following account into ${sink.name}`)

while (!stop.signal.aborted) {
  const { changes, level } = await reader.next()
  for (const change of changes) {
    const delivery = format.encode(change)
    // Until it is confirmed: the next change of this row must not come before it.
    for (let isDelivered = delivery === undefined; !isDelivered && !stop.signal.aborted;) {
      const [failure] = delivery === undefined ? [] : await sink.deliver([delivery], stop.signal)
      isDelivered = failure === undefined
      if (failure !== undefined) console.error(failure.message)
      if (failure !== undefined) await pause(1_000, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  if (level) await pause(100, undefined, { signal: stop.signal }).catch(() => undefined)
}
await sink.stop()
await trunkline.stop()
await trunkline.pool.end()
