import type { PoolClient } from 'pg'
import { backoffMs, pause, TrunklineError } from '../core/index.ts'

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

/** How long a runner waits for its turn, in milliseconds. */
const turnTimeoutMs = 60_000

/**
 * Lets runners for one schema come one after the other, until the end of the transaction. Asks again and again instead of waiting in the
 * server, so that `signal` ends it at once.
 *
 * @throws TrunklineError `migration_busy`, retryable.
 */
export async function takeTurn(client: PoolClient, schema: string, signal?: AbortSignal): Promise<void> {
  await client.query(`set local statement_timeout = ${turnTimeoutMs}`)
  const deadline = performance.now() + turnTimeoutMs
  for (let attempt = 1; ; attempt += 1) {
    const { rows } = await client.query<{ taken: boolean }>(
      'select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, 0)) as taken',
      [`trunkline schema ${schema}`],
    )
    if (rows[0]?.taken === true) return
    if (signal?.aborted === true || performance.now() > deadline) throw busy(schema)
    await pause(backoffMs(attempt, { firstMs: 20, maxMs: 200 }))
  }
}

function busy(schema: string): TrunklineError {
  return new TrunklineError(`Schema "${schema}" is being migrated or uninstalled by another process.`, {
    code: 'migration_busy',
    retryable: true,
    hint: 'Wait for it, or see what it waits for: select * from pg_stat_activity.',
    details: { schema },
  })
}
