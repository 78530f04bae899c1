import type { Pool, PoolClient } from 'pg'

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
  const client = await pool.connect()
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
