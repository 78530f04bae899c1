import type { TableDescription } from '../log/index.ts'
import { KeyedRows } from './keyed-rows.ts'
import { KeylessRows } from './keyless-rows.ts'
import type { IndexDefinitions, Rows } from './rows.ts'

/** Makes an empty store for the table. */
export function createRows(table: TableDescription, indexes: IndexDefinitions): Rows {
  return table.key.length === 0 ? new KeylessRows(table, indexes) : new KeyedRows(table, indexes)
}
