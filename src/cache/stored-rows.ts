import { isDeepStrictEqual } from 'node:util'
import { InvalidInputError } from '../core/index.ts'
import type { TableDescription } from '../log/index.ts'
import type { IndexDefinitions, Row, RowChange, Rows } from './rows.ts'
import { SecondaryIndex } from './secondary-index.ts'

/** What both kinds of stores have in common: how a row is made, and the secondary indexes. */
export abstract class StoredRows {
  readonly table: TableDescription
  readonly indexes: ReadonlyMap<string, SecondaryIndex>

  constructor(table: TableDescription, definitions: IndexDefinitions) {
    this.table = table
    this.indexes = new Map(
      Object.entries(definitions).map(([name, columns]) => [name, createIndex(table, name, columns)]),
    )
  }

  by(name: string, values: readonly unknown[]): readonly Row[] {
    const index = this.indexes.get(name)
    if (index === undefined) {
      throw new InvalidInputError(`The cache of ${this.table.tableName} has no index "${name}".`, {
        code: 'unknown_index',
        hint: `Its indexes: ${[...this.indexes.keys()].join(', ') || 'none'}. Define them: cache(table, { indexes: { ${name}: ['column'] } }).`,
      })
    }
    if (values.length !== index.columns.length) {
      throw new InvalidInputError(
        `Index "${name}" has the columns ${index.columns.join(', ')}; ${values.length} values were given.`,
        { code: 'invalid_key' },
      )
    }
    return index.get(values)
  }

  protected rowOf(values: readonly unknown[], prefix: number): Row {
    const row: Record<string, unknown> = {}
    const { columns } = this.table
    for (let place = 0; place < columns.length; place += 1) {
      const name = columns[place] as string
      if (name !== '__proto__') row[name] = values[prefix + place]
      else Object.defineProperty(row, name, { value: values[prefix + place], enumerable: true })
    }
    return Object.freeze(row)
  }

  /** True when `rowOf` would make an equal row. */
  protected isRowOf(row: Row, values: readonly unknown[], prefix: number): boolean {
    const { columns } = this.table
    for (let place = columns.length - 1; place >= 0; place -= 1) {
      if (!isSame(row[columns[place] as string], values[prefix + place])) return false
    }
    return true
  }

  /** True when two rows hold the same. */
  protected isEqual(one: Row, other: Row): boolean {
    const { columns } = this.table
    return columns.every((name) => isSame(one[name], other[name]))
  }

  protected indexRow(row: Row): void {
    for (const index of this.indexes.values()) index.add(row)
  }

  protected unindexRow(row: Row): void {
    for (const index of this.indexes.values()) index.remove(row)
  }
}

/** As deep equality has it, and quick where values are no objects. 0 and -0 are two values, NaN is one. */
function isSame(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true
  return typeof one === 'object' && typeof other === 'object' && isDeepStrictEqual(one, other)
}

function createIndex(table: TableDescription, name: string, columns: readonly string[]): SecondaryIndex {
  const unknown = columns.find((column) => !table.columns.includes(column))
  if (unknown !== undefined || columns.length === 0) {
    throw new InvalidInputError(
      unknown === undefined
        ? `Index "${name}" has no columns.`
        : `Index "${name}" names "${unknown}", which is no column of the cache of ${table.tableName}.`,
      { code: 'unknown_column', hint: `Its columns: ${table.columns.join(', ')}.` },
    )
  }
  return new SecondaryIndex(columns)
}

/** All rows of the one gone, all of the other come. */
export function replaced(before: Rows, after: Rows): RowChange[] {
  const gone = Array.from(before.values(), (old) => ({ old, new: undefined }))
  return [...gone, ...Array.from(after.values(), (row) => ({ old: undefined, new: row }))]
}
