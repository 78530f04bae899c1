import type { Pool, PoolClient } from 'pg'
import { ConnectionError, withTimeout } from '../core/index.ts'
import { guardAgainstHugeValues } from './huge-values.ts'

/** How long to wait until a pool has a connection for us, in milliseconds; its own limit is none by default. */
const freeTimeoutMs = 10_000

/**
 * Runs an action on a connection of its own, which goes back to the pool only if it is whole. A pool hears a connection only
 * while it is idle: one that breaks while somebody has it tells of it with `error`, which unheard ends the process.
 *
 * @param isReusable whether a connection on which the action failed is. Default: unless it broke.
 */
export async function withClient<Result>(
  pool: Pool,
  action: (client: PoolClient) => Promise<Result>,
  isReusable: (failure: unknown) => boolean = () => true,
): Promise<Result> {
  const client = await connect(pool)
  guardAgainstHugeValues(client)
  let isBroken = false
  const markBroken = (): void => {
    isBroken = true
  }
  client.on('error', markBroken)
  try {
    return await action(client)
  } catch (failure) {
    isBroken ||= !isReusable(failure)
    throw failure
  } finally {
    client.off('error', markBroken)
    client.release(isBroken)
  }
}

async function connect(pool: Pool): Promise<PoolClient> {
  const connecting = pool.connect()
  return withTimeout(connecting, freeTimeoutMs, () => {
    // It comes some day, and goes back at once.
    connecting.then(
      (client) => client.release(),
      () => undefined,
    )
    const { totalCount: total, idleCount: idle, waitingCount: waiting } = pool
    return new ConnectionError(
      `The pool had no connection within ${freeTimeoutMs} ms: of ${total} none is free, ${waiting} wait for one.`,
      {
        code: 'pool_exhausted',
        retryable: true,
        hint: 'See who keeps them, give the pool more (max), or trunkline a pool of its own (url).',
        details: { total, idle, waiting },
      },
    )
  })
}
