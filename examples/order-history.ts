/**
 * The life of an order, event-sourced: two writers race, an old event is read in today's form, a snapshot spares the replay, and
 * yesterday is asked for. A read model follows, and is rebuilt while it serves. One command runs it on a PostgreSQL of its own, and it checks what it says:
 *
 *     node examples/order-history.ts
 *
 * With DATABASE_URL=postgres://owner:secret@localhost:5432/shop it runs there. In an application the imports are from 'trunkline'.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { createTrunkline, upcaster, VersionConflictError } from '../src/index.ts'
import { startEmbeddedPostgres } from '../src/testing/index.ts'

type OrderEvent =
  | { type: 'created'; payload: { customer: string } }
  | { type: 'item-added'; payload: { sku: string; quantity: number } }
  | { type: 'shipped'; payload: { carrier: string } }

interface Order {
  readonly status: 'none' | 'open' | 'shipped'
  readonly items: Readonly<Record<string, number>>
}

function evolve(order: Order, event: OrderEvent): Order {
  switch (event.type) {
    case 'created':
      return { ...order, status: 'open' }
    case 'item-added': {
      const { sku, quantity } = event.payload
      return { ...order, items: { ...order.items, [sku]: (order.items[sku] ?? 0) + quantity } }
    }
    case 'shipped':
      return { ...order, status: 'shipped' }
  }
}

await using stack = new AsyncDisposableStack()
const url = process.env['DATABASE_URL'] ?? stack.use(await startEmbeddedPostgres({ version: '18' })).url
const trunkline = stack.use(createTrunkline({ url }))
await trunkline.migrate()
const { events } = trunkline
const orders = events.aggregate({
  type: 'order',
  initialState: { status: 'none', items: {} },
  evolve,
  // Two years ago a release wrote { item: 'apple' }, one at a time.
  upcasters: [
    upcaster({
      from: { type: 'item-added', schemaVersion: 1 },
      to: { type: 'item-added', schemaVersion: 2 },
      upcast: ({ item }: { item: string }) => ({ sku: item, quantity: 1 }),
    }),
  ],
  snapshotEvery: 5,
})
const id = randomUUID()
const stream = `order-${id}`

// As that release wrote it.
await events.append(stream, 'no-stream', [
  { type: 'created', payload: { customer: 'Ada' } },
  { type: 'item-added', schemaVersion: 1, payload: { item: 'apple' } },
])
const old = await orders.load(id)
assert.deepEqual(old.state, { status: 'open', items: { apple: 1 } })
console.log('an old event in its new form:', old.state.items)

// Two writers who saw the same version: one wins, and the other is told.
const race = await Promise.allSettled(
  ['pear', 'plum'].map(async (sku) =>
    events.append(stream, old.version, { type: 'item-added', schemaVersion: 2, payload: { sku, quantity: 2 } }),
  ),
)
const lost = race.flatMap((each): unknown[] => (each.status === 'rejected' ? [each.reason] : []))
assert.equal(lost.length, 1)
assert.ok(lost[0] instanceof VersionConflictError)
console.log('two writers:', lost[0].message)

// With commands the loser decides again, on what the winner left: both are in.
await Promise.all(
  ['fig', 'fig', 'fig'].map(async (sku) =>
    orders.handle(id, ({ status }) => {
      if (status !== 'open') throw new Error(`Nothing can be added to an order that is ${status}.`)
      return { type: 'item-added', payload: { sku, quantity: 1 } }
    }),
  ),
)
const packed = await orders.load(id)
assert.equal(packed.state.items['fig'], 3)
console.log('three commands:', packed.state.items)

// What has been until here is yesterday, for the rest of the story.
const yesterday = (await events.read(stream)).at(-1)?.createdAt
await pause(10)
await orders.handle(id, () => ({ type: 'shipped', payload: { carrier: 'rail' } }))
await assert.rejects(
  orders.handle(id, ({ status }) => {
    if (status !== 'open') throw new Error('It has left.')
    return { type: 'item-added', payload: { sku: 'late', quantity: 1 } }
  }),
  /It has left/,
)
assert.ok(yesterday !== undefined)
const [now, then] = [await orders.load(id), await orders.load(id, { asOf: yesterday })]
assert.equal(now.state.status, 'shipped')
assert.deepEqual(then.state, packed.state)
console.log(
  `now it is ${now.state.status} (version ${now.version}), yesterday it was ${then.state.status} (version ${then.version})`,
)

// The snapshot is a cache: it is stored after the command, and another process starts from it.
const snapshot = 'select version::integer from trunkline.aggregate_snapshot where aggregate_id = $1'
while ((await trunkline.pool.query(snapshot, [id])).rowCount === 0) await pause(10)
const { rows } = await trunkline.pool.query<{ version: number }>(snapshot, [id])
console.log(`a snapshot of version ${rows[0]?.version} is there`)
for await (const { version, type, payload, createdAt } of events.read(stream))
  console.log(version, createdAt.toISOString(), type, JSON.stringify(payload))

// A read model: made of all events, old ones in their new form, and anew while it serves.
const orderList = stack.use(
  trunkline.projection<OrderEvent>({
    name: 'order_list',
    mode: 'async',
    categories: ['order'],
    tables: {
      order_list: (table) =>
        `create table ${table} (id text primary key, status text not null, items int not null default 0)`,
    },
    handlers: {
      created: ({ aggregateId }, { query, table }) =>
        query(`insert into ${table('order_list')} (id, status) values ($1, 'open')`, [aggregateId]),
      'item-added': ({ aggregateId, payload }, { query, table }) =>
        query(`update ${table('order_list')} set items = items + $2 where id = $1`, [aggregateId, payload.quantity]),
      shipped: ({ aggregateId }, { query, table }) =>
        query(`update ${table('order_list')} set status = 'shipped' where id = $1`, [aggregateId]),
    },
  }),
)
await orderList.start()
const row = async (order: string): Promise<unknown> =>
  (await trunkline.pool.query('select status, items from order_list where id = $1', [order])).rows[0]
await orderList.reached((await events.query({ stream, direction: 'backward', limit: 1 }))[0]?.position ?? '0')
assert.deepEqual(await row(id), { status: 'shipped', items: 6 })
// Orders come in meanwhile, and whoever reads finds what was there before.
const rebuilding = orderList.rebuild()
const later: string[] = []
for (let n = 0; n < 5; n += 1) {
  later.push(randomUUID())
  await events.append(`order-${later.at(-1)}`, 'no-stream', { type: 'created', payload: { customer: 'Bob' } })
  assert.deepEqual(await row(id), { status: 'shipped', items: 6 })
}
await rebuilding
const { position } = await events.append(`order-${later[0]}`, 1, {
  type: 'item-added',
  schemaVersion: 2,
  payload: { sku: 'kiwi', quantity: 7 },
})
await orderList.reached(position)
assert.deepEqual(await row(id), { status: 'shipped', items: 6 })
assert.deepEqual(await row(later[0] ?? ''), { status: 'open', items: 7 })
for (const order of later.slice(1)) assert.deepEqual(await row(order), { status: 'open', items: 0 })
console.log('the read model, rebuilt while it served:', await row(id))
console.log('all as expected')
