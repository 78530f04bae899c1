import type { QueryResultRow } from 'pg'

/**
 * The one thing trunkline asks of a driver: run a statement with $1… values and give its rows. A pg Client, PoolClient or
 * Pool is one as it is; src/adapters turns others into one.
 */
export interface Queryable {
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
  query<Row extends QueryResultRow = QueryResultRow>(text: string, values?: unknown[]): Promise<{ rows: Row[] }>
}
