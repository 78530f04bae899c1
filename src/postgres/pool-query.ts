import { DatabaseError, type Pool, type QueryConfig, type QueryResultRow } from 'pg'
import { isConnectionFailure } from './errors.ts'

/**
 * Runs one statement on a connection of a pool. Unlike `pool.query` it keeps a connection on which the server has refused a
 * statement: to make a new one takes ten times as long as a version conflict, say.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
export async function queryPool<Row extends QueryResultRow>(pool: Pool, query: QueryConfig): Promise<{ rows: Row[] }> {
  const client = await pool.connect()
  let failure: Error | undefined
  client.on('error', ignore)
  try {
    return await client.query<Row>(query)
  } catch (error) {
    if (!(error instanceof DatabaseError) || isConnectionFailure(error)) failure = error as Error
    throw error
  } finally {
    client.removeListener('error', ignore)
    client.release(failure)
  }
}

/** For the error of a connection in use: it tells its statement, too. */
function ignore(): void {
  // Nothing to do.
}
