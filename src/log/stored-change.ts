import { type Change, type ChangedTable, rememberTable, tableOf } from './change.ts'
import { parseExact } from './decode-json.ts'

/** A change with what is remembered beside it. */
type Stored = Change & { readonly describedTable?: ChangedTable }

/** A change as text, to be kept and encoded again later: with its table, which a format may need. */
export function storedChange(change: Change): string {
  const table = tableOf(change)
  if (table === undefined) return JSON.stringify(change)
  const columns = table.columns.map(({ name, typeOid, typeModifier }) => ({ name, typeOid, typeModifier }))
  return JSON.stringify({ ...change, describedTable: { keyColumns: table.keyColumns, columns } })
}

/** What `storedChange` wrote, or a change as JSON. Every digit is kept. */
export function restoredChange(text: string): Change {
  const { describedTable, ...change } = parseExact(text) as Stored
  if (describedTable !== undefined) rememberTable(change, describedTable)
  return change
}
