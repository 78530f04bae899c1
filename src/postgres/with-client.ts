import type { Pool, PoolClient } from 'pg'
import { ConnectionError, TrunklineError } from '../core/index.ts'
import { isConnectionFailure } from './errors.ts'

/**
 * Runs an action on a connection of its own, which goes back to the pool only if it is whole. A pool hears a connection only
 * while it is idle: one that breaks while somebody has it tells of it with `error`, which unheard ends the process.
 *
 * @param isReusable whether a connection on which the action failed is. Default: unless it broke.
 * @throws what the action throws; where that is only that there is no connection any more, what broke it.
 */
export async function withClient<Result>(
  pool: Pool,
  action: (client: PoolClient) => Promise<Result>,
  isReusable: (failure: unknown) => boolean = () => true,
): Promise<Result> {
  const client = await pool.connect()
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
