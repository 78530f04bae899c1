import type { PoolClient } from 'pg'

/** Runs an action in a transaction; a failure rolls it back. */
export async function inTransaction<Result>(client: PoolClient, action: () => Promise<Result>): Promise<Result> {
  await client.query('begin')
  try {
    const result = await action()
    await client.query('commit')
    return result
  } catch (error) {
    // The first error is the one to tell; a broken connection has rolled back by itself.
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}

/**
 * Lets runners for one schema come one after the other, until the end of the transaction. Taken before any lock timeout
 * is set: to wait for another runner is no contention.
 */
export async function takeTurn(client: PoolClient, schema: string): Promise<void> {
  await client.query("set local lock_timeout = 0; set local statement_timeout = '60s'")
  await client.query('select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))', [
    `trunkline schema ${schema}`,
  ])
}
