/**
 * Drizzle on a primary and its replicas. Run it against any PostgreSQL from 12 on:
 *
 *     DATABASE_URL=postgres://… TRUNKLINE_REPLICA_URLS=postgres://…,postgres://… node examples/routing-drizzle.ts
 *
 * In an application the import is from 'trunkline'.
 */
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import { createTrunkline } from '../src/index.ts'

const orderNote = pgTable('order_note', { id: integer().primaryKey(), note: text().notNull() })

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
const pools = trunkline.routing.pools()
const primary = drizzle({ client: pools.write })
const replica = drizzle({ client: pools.read })

await primary.execute(sql`create table if not exists order_note (id integer primary key, note text not null)`)

// A session is what one request is: its reads see its writes, whichever replica they meet.
await trunkline.routing.session(async () => {
  await primary.transaction(async (tx) => {
    await tx.delete(orderNote)
    await tx.insert(orderNote).values({ id: 1, note: 'leave it with the neighbour' })
  })
  const notes = await replica.select().from(orderNote)
  console.log('read back:', notes[0]?.note)
  // A transaction of several reads: one connection, one replica.
  const [first] = await replica.transaction(async (tx) => tx.select().from(orderNote).where(eq(orderNote.id, 1)), {
    isolationLevel: 'repeatable read',
    accessMode: 'read only',
  })
  console.log('in one snapshot:', first?.note)
})

// What writes does not work there, not even while the primary stands in for the replicas.
await replica
  .insert(orderNote)
  .values({ id: 2, note: 'no' })
  .catch((error: unknown) => console.log('refused:', (error as { cause: { code: string } }).cause.code))

// Inside of a routed transaction: the same connection, begun and ended by trunkline.
await trunkline.write(async (tx) => {
  await drizzle({ client: await tx.client() })
    .update(orderNote)
    .set({ note: 'ring twice' })
})
console.log('then:', (await primary.select().from(orderNote))[0]?.note)

for (const { intent, target, reason, count } of trunkline.routing.status().decisions) {
  console.log(`${intent} on ${target}, ${reason}: ${count}`)
}
await trunkline.stop()
