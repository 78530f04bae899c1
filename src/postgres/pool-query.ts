import { DatabaseError, type Pool, type QueryConfig, type QueryResultRow } from 'pg'
import { isConnectionFailure } from './errors.ts'
import { withClient } from './with-client.ts'

/**
 * Runs one statement on a connection of a pool. Unlike `pool.query` it keeps a connection on which the server has refused a
 * statement: to make a new one takes ten times as long as a version conflict, say.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
export async function queryPool<Row extends QueryResultRow>(pool: Pool, query: QueryConfig): Promise<{ rows: Row[] }> {
  return withClient(pool, (client) => client.query<Row>(query), { isReusable: isRefusal })
}

function isRefusal(failure: unknown): boolean {
  return failure instanceof DatabaseError && !isConnectionFailure(failure)
}
