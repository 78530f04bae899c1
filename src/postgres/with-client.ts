import type { Pool, PoolClient } from 'pg'
import { ConnectionError, TrunklineError, withTimeout } from '../core/index.ts'
import { isConnectionFailure } from './errors.ts'
import { guardAgainstHugeValues } from './huge-values.ts'

export interface ClientUse {
  /** Whether a connection on which the action failed goes back to the pool. Default: unless it broke. */
  readonly isReusable?: ((failure: unknown) => boolean) | undefined
  /** How long to wait until the pool has a connection for us, in milliseconds. Default: as long as the pool itself does. */
  readonly freeTimeoutMs?: number | undefined
}

/**
 * Runs an action on a connection of its own, which goes back to the pool only if it is whole. A pool hears a connection only
 * while it is idle: one that breaks while somebody has it tells of it with `error`, which unheard ends the process.
 *
 * @throws what the action throws; where that is only that there is no connection any more, what broke it. ConnectionError
 *   `pool_exhausted`.
 */
export async function withClient<Result>(
  pool: Pool,
  action: (client: PoolClient) => Promise<Result>,
  { isReusable = () => true, freeTimeoutMs }: ClientUse = {},
): Promise<Result> {
  const client = await (freeTimeoutMs === undefined ? pool.connect() : connectInTime(pool, freeTimeoutMs))
  guardAgainstHugeValues(client)
  let broken: Error | undefined
  let isSound = true
  const onError = (error: Error): void => {
    broken ??= error
  }
  client.on('error', onError)
  try {
    return await action(client)
  } catch (failure) {
    isSound = isReusable(failure)
    throw broken !== undefined && isOfConnection(failure) ? broken : failure
  } finally {
    client.off('error', onError)
    client.release(broken ?? !isSound)
  }
}

function isOfConnection(failure: unknown): boolean {
  return failure instanceof ConnectionError || (!(failure instanceof TrunklineError) && isConnectionFailure(failure))
}

async function connectInTime(pool: Pool, ms: number): Promise<PoolClient> {
  const connecting = pool.connect()
  return withTimeout(connecting, ms, () => {
    // It comes some day, and goes back at once.
    connecting.then(
      (client) => client.release(),
      () => undefined,
    )
    const { totalCount: total, idleCount: idle, waitingCount: waiting } = pool
    return new ConnectionError(
      `The pool had no connection within ${ms} ms: of ${total} none is free, ${waiting} wait for one.`,
      {
        code: 'pool_exhausted',
        retryable: true,
        hint: 'See who keeps them, give the pool more (max), or trunkline a pool of its own (url).',
        details: { total, idle, waiting },
      },
    )
  })
}
