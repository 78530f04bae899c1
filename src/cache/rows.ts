import type { FetchedRows, TableDescription } from '../log/index.ts'

/** A row as a SELECT through the driver gives it; frozen. */
export type Row = Readonly<Record<string, unknown>>

/** What one step did to a row: between what could be read before it and what can be read after it. */
export interface RowChange {
  readonly old: Row | undefined
  readonly new: Row | undefined
}

/** A change of the stored rows that is prepared and not yet visible. Running it does not throw. */
export type PreparedChange = () => RowChange[]

/** The rows of one table, by key. */
export interface Rows {
  readonly table: TableDescription
  readonly size: number
  values(): Iterable<Row>
  get(key: unknown): Row | undefined
  by(index: string, values: readonly unknown[]): readonly Row[]
  /** Adds rows of a copy. */
  load(page: FetchedRows): void
  /** Prepares a step ahead; throws when it contradicts what is stored. */
  prepare(changes: FetchedRows): PreparedChange
  /** What turns these rows into the others. */
  difference(next: Rows): RowChange[]
}

/** Named lists of columns to look rows up by. */
export type IndexDefinitions = Readonly<Record<string, readonly string[]>>
