/**
 * Kysely on a primary and its replicas: two instances, one for each intent. Run it against any PostgreSQL from 12 on:
 *
 *     DATABASE_URL=postgres://… TRUNKLINE_REPLICA_URLS=postgres://…,postgres://… node examples/routing-kysely.ts
 *
 * In an application the import is from 'trunkline'.
 */
import { Kysely, PostgresDialect, sql } from 'kysely'
import { createTrunkline } from '../src/index.ts'

interface Database {
  order_note: { id: number; note: string }
}

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
const pools = trunkline.routing.pools()
const primary = new Kysely<Database>({ dialect: new PostgresDialect({ pool: pools.write }) })
const replica = new Kysely<Database>({ dialect: new PostgresDialect({ pool: pools.read }) })

await sql`create table if not exists order_note (id integer primary key, note text not null)`.execute(primary)

// A session is what one request is: its reads see its writes, whichever replica they meet.
await trunkline.routing.session(async () => {
  await primary.transaction().execute(async (tx) => {
    await tx.deleteFrom('order_note').execute()
    await tx.insertInto('order_note').values({ id: 1, note: 'leave it with the neighbour' }).execute()
  })
  const notes = await replica.selectFrom('order_note').selectAll().execute()
  console.log('read back:', notes[0]?.note)
})

// What writes does not work there, not even while the primary stands in for the replicas.
await replica
  .insertInto('order_note')
  .values({ id: 2, note: 'no' })
  .execute()
  .catch((error: unknown) => console.log('refused:', (error as { code: string }).code))

// Inside of a routed transaction: on its connection, which trunkline begins, ends and gives back.
await trunkline.write(async (tx) => {
  const pool = { connect: async () => tx.client(), end: async () => undefined, options: {} }
  const inside = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
  await inside.updateTable('order_note').set({ note: 'ring twice' }).execute()
})
console.log('then:', (await primary.selectFrom('order_note').select('note').executeTakeFirst())?.note)

for (const { intent, target, reason, count } of trunkline.routing.status().decisions) {
  console.log(`${intent} on ${target}, ${reason}: ${count}`)
}
await trunkline.stop()
