import type { Pool, PoolClient } from 'pg'
import { TrunklineError, withTimeout } from '../core/index.ts'
import { withClient } from './with-client.ts'

/** How long a ROLLBACK may take, in milliseconds. */
const rollbackMsDefault = 5_000

/**
 * Runs a function in a transaction on a connection of its own, and commits it. When it throws, all is rolled back; where that
 * cannot be had in time, or the connection broke, the connection goes.
 *
 * @param rollbackMs how long a statement may still run that a ROLLBACK waits behind.
 * @throws what `run` and the driver throw; what broke the connection; TrunklineError `transaction_failed`: nothing was committed.
 */
export async function inTransaction<Result>(
  pool: Pool,
  run: (client: PoolClient) => Promise<Result>,
  rollbackMs: number = rollbackMsDefault,
): Promise<Result> {
  let isEnded = false
  return withClient(
    pool,
    async (client) => {
      try {
        await client.query('begin isolation level read committed')
        const result = await run(client)
        await commit(client)
        return result
      } catch (error) {
        isEnded = await isRolledBack(client, rollbackMs)
        throw error
      }
    },
    { isReusable: () => isEnded },
  )
}

/** A transaction in which a statement has failed is rolled back by COMMIT, and that is no error to the server. */
async function commit(client: PoolClient): Promise<void> {
  const { command } = await client.query('commit')
  if (command === 'COMMIT') return
  throw new TrunklineError(
    'The transaction was rolled back: a statement in it had failed, and nobody had heard of that.',
    {
      code: 'transaction_failed',
      hint: 'Await every statement, and let its error through.',
    },
  )
}

async function isRolledBack(client: PoolClient, ms: number): Promise<boolean> {
  try {
    await withTimeout(client.query('rollback'), ms, () => new Error('The connection does not answer.'))
    return true
  } catch {
    return false
  }
}
