import { hash } from 'node:crypto'

/**
 * What happened to a captured row. `truncate`: to all rows of the table. `resync`: rows changed in a way that no trigger saw
 * in full (a partition was truncated, capture began again, a filter failed): whoever holds a copy of the table copies it
 * afresh.
 */
export type Operation = 'insert' | 'update' | 'delete' | 'truncate' | 'resync'

/** One row of the log: a change of a captured table, or an emitted event. */
export interface Change {
  /** Reading from here gives what comes after this change. */
  readonly position: string
  /** Grows with time for one key. Fail-over to a standby can use numbers again: to tell messages apart take `messageId`. */
  readonly id: string
  /** The transaction that wrote it, 64 bits. */
  readonly xid: string
  /** A uuid, the same whenever and by whomever the change is read. */
  readonly messageId: string
  /** Of a captured change: `schema.table`. */
  readonly topic: string
  /**
   * What orders changes of a topic. Of a captured change: the primary key, for one column its bare value, for more a JSON
   * object; without primary key the whole row; null for `truncate` and `resync`. Of an update that changed the key: the new one.
   */
  readonly key: string | null
  /** Of an event. */
  readonly type: string | null
  /** `schema.table` as the table is called now; null: an event. */
  readonly table: string | null
  /** Null: an event. */
  readonly operation: Operation | null
  /** The row before an update or delete. Of a table captured with `rows: 'keys'` its key alone, in updates only if that changed. */
  readonly old: Readonly<Record<string, unknown>> | null
  /** The row after an insert or update; key columns only with `rows: 'keys'`. */
  readonly new: Readonly<Record<string, unknown>> | null
  /** Of an event. */
  readonly payload: unknown
  readonly headers: Readonly<Record<string, unknown>> | null
  /** When it was written (not committed), in UTC with microseconds. */
  readonly createdAt: string
}

export interface ChangedColumn {
  readonly name: string
  readonly typeOid: string
  /** `atttypmod`: of `timestamp(3)` its 3. -1 or undefined: none. */
  readonly typeModifier?: number | undefined
}

/** Of the table of a captured change, as it was described when the change was decoded. */
export interface ChangedTable {
  /** Empty: the whole row is the key. */
  readonly keyColumns: readonly string[]
  /** Columns in the table's order; `typeOid` is that of pg_type. */
  readonly columns: readonly ChangedColumn[]
}

/** Beside the change, not in it: `tail --json` and the like print a change as it is. */
const tables = new WeakMap<Change, ChangedTable>()

/** For formats that name key columns, or write values by their type. Undefined: an event, or the table was dropped. */
export function tableOf(change: Change): ChangedTable | undefined {
  return tables.get(change)
}

export function rememberTable(change: Change, table: ChangedTable): void {
  tables.set(change, table)
}

const operations: Readonly<Record<string, Operation>> = {
  i: 'insert',
  u: 'update',
  d: 'delete',
  t: 'truncate',
  x: 'resync',
}

/** The log's letter in words; null: an event. */
export function operationOf(letter: string): Operation | null {
  return operations[letter] ?? null
}

/**
 * A uuid (version 8) from what tells two rows of the log apart even after a fail-over to an asynchronous standby, where
 * ids and xids can be used again.
 */
export function messageIdOf(id: string, xid: string, createdAt: string): string {
  const digits = hash('sha256', `${id}/${xid}/${createdAt}`)
  const variant = ((Number.parseInt(digits.charAt(16), 16) & 0x3) | 0x8).toString(16)
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-8${digits.slice(13, 16)}-${variant}${digits.slice(17, 20)}-${digits.slice(20, 32)}`
}
