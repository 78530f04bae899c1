import { isDeepStrictEqual } from 'node:util'
import { InvalidInputError } from '../core/index.ts'
import { type FetchedRows, type TableDescription, wholeTable } from '../log/index.ts'
import { KeyMap } from './key-map.ts'
import { KeyCodec, type KeyPart } from './key.ts'
import type { IndexDefinitions, PreparedChange, Row, RowChange, Rows } from './rows.ts'
import { SecondaryIndex } from './secondary-index.ts'
import { replaced, StoredRows } from './stored-rows.ts'

/** A step as read: keys that were touched, and the rows that stand under them now. */
interface KeyedStep {
  readonly isTruncated: boolean
  readonly touched: readonly (readonly KeyPart[])[]
  readonly found: readonly { readonly key: readonly KeyPart[]; readonly row: Row }[]
}

/** The rows of a table by its primary key. */
export class KeyedRows extends StoredRows implements Rows {
  readonly #codecs: readonly KeyCodec[]
  readonly #single: KeyCodec | undefined
  #rows: KeyMap<Row>
  /** Made when it is first needed. */
  #byValues: SecondaryIndex | undefined

  constructor(table: TableDescription, definitions: IndexDefinitions) {
    super(table, definitions)
    this.#codecs = table.key.map((column) => new KeyCodec(column))
    this.#single = this.#codecs.length === 1 ? this.#codecs[0] : undefined
    this.#rows = new KeyMap(this.#codecs.length)
  }

  get size(): number {
    return this.#rows.size
  }

  values(): Iterable<Row> {
    return this.#rows.values()
  }

  get(key: unknown): Row | undefined {
    if (this.#single !== undefined && (typeof key !== 'object' || key === null)) {
      const part = this.#single.fromValue(key)
      return part === undefined ? this.#getByValues([key], [part]) : this.#rows.getOne(part)
    }
    const values = this.#valuesOf(key)
    const parts = this.#codecs.map((codec, place) => codec.fromValue(values[place]))
    const isExact = parts.every((part) => part !== undefined)
    const row = isExact ? this.#rows.get(parts) : undefined
    if (row !== undefined || (isExact && !values.some((value) => value instanceof Date))) return row
    return this.#getByValues(values, parts)
  }

  load({ rows, prefix }: FetchedRows): void {
    for (const values of rows) {
      const row = this.rowOf(values, prefix)
      this.#rows.set(this.#parts(values, 0), row)
      this.indexRow(row)
    }
  }

  prepare({ rows, prefix }: FetchedRows): PreparedChange {
    // The operation, the touched key, found, the found row's key, the row.
    const width = this.#codecs.length
    if (rows.some((values) => values[0] === wholeTable)) {
      const present = rows.filter((values) => values[0] === null)
      return () => this.#replace(present, prefix)
    }
    const step: KeyedStep = {
      isTruncated: rows.some((values) => values[0] === 't'),
      touched: rows.filter((values) => values[1] !== null).map((values) => this.#parts(values, 1)),
      found: rows
        .filter((values) => values[1 + width] === true)
        .map((values) => ({ key: this.#parts(values, 2 + width), row: this.rowOf(values, prefix) })),
    }
    return () => this.#apply(step)
  }

  difference(next: Rows): RowChange[] {
    if (!(next instanceof KeyedRows) || next.#codecs.length !== this.#codecs.length) return replaced(this, next)
    const changes: RowChange[] = []
    for (const [key, row] of this.#rows.entries()) {
      const after = next.#rows.get(key)
      if (after === undefined || !isDeepStrictEqual(row, after)) changes.push({ old: row, new: after })
    }
    for (const [key, row] of next.#rows.entries())
      if (this.#rows.get(key) === undefined) changes.push({ old: undefined, new: row })
    return changes
  }

  #apply(step: KeyedStep): RowChange[] {
    const before = new KeyMap<Row>(this.#codecs.length)
    const take = (key: readonly KeyPart[]): void => {
      const row = this.#rows.delete(key)
      if (row !== undefined) before.set(key, row)
    }
    if (step.isTruncated) {
      const all = this.#rows
      this.#rows = new KeyMap(this.#codecs.length)
      for (const [key, row] of all.entries()) before.set(key, row)
    }
    for (const key of step.touched) take(key)
    const changes: RowChange[] = []
    const placed = new KeyMap<true>(this.#codecs.length)
    for (const { key, row } of step.found) {
      // Two texts of one key find the same row.
      if (placed.get(key) === true) continue
      placed.set(key, true)
      take(key)
      const old = before.delete(key)
      const isSame = old !== undefined && this.isEqual(old, row)
      this.#rows.set(key, isSame ? old : row)
      if (!isSame) changes.push({ old, new: row })
    }
    for (const row of before.values()) changes.push({ old: row, new: undefined })
    this.#index(changes)
    return changes
  }

  /** The table as it is now, whatever happened to it. Rows that are as they were stay the same objects. */
  #replace(present: FetchedRows['rows'], prefix: number): RowChange[] {
    const keyOf = (values: readonly unknown[]): KeyPart[] => this.#parts(values, 2 + this.#codecs.length)
    const changes: RowChange[] = []
    for (const values of present) {
      const key = keyOf(values)
      const old = this.#rows.get(key)
      if (old !== undefined && this.isRowOf(old, values, prefix)) continue
      const row = this.rowOf(values, prefix)
      this.#rows.set(key, row)
      changes.push({ old, new: row })
    }
    if (this.#rows.size > present.length) {
      const kept = new KeyMap<true>(this.#codecs.length)
      for (const values of present) kept.set(keyOf(values), true)
      const gone = [...this.#rows.entries()].filter(([key]) => kept.get(key) === undefined)
      for (const [key, old] of gone) {
        this.#rows.delete(key)
        changes.push({ old, new: undefined })
      }
    }
    this.#index(changes)
    return changes
  }

  #index(changes: readonly RowChange[]): void {
    for (const { old, new: row } of changes) {
      if (old !== undefined) this.unindexRow(old)
      if (row !== undefined) this.indexRow(row)
    }
  }

  protected override indexRow(row: Row): void {
    super.indexRow(row)
    this.#byValues?.add(row)
  }

  protected override unindexRow(row: Row): void {
    super.unindexRow(row)
    this.#byValues?.remove(row)
  }

  #parts(values: readonly unknown[], from: number): KeyPart[] {
    return this.#codecs.map((codec, place) => codec.fromText(values[from + place] as string))
  }

  #valuesOf(key: unknown): unknown[] {
    const names = this.#codecs.map(({ name }) => name)
    const record = (typeof key === 'object' && key !== null ? key : {}) as Record<string, unknown>
    const missing = names.find((name) => !Object.hasOwn(record, name) || record[name] === undefined)
    if (missing === undefined) return names.map((name) => record[name])
    if (this.#single !== undefined && (!this.#single.isScalar || key instanceof Date || key instanceof Uint8Array))
      return [key]
    throw new InvalidInputError(
      `The key of ${this.table.tableName} has the columns ${names.join(', ')}; "${missing}" is missing.`,
      {
        code: 'invalid_key',
        hint: `Look it up by { ${names.join(', ')} }${names.length === 1 ? ' or by the bare value' : ''}.`,
      },
    )
  }

  /** By values without one text (intervals, arrays, a Date of a time with microseconds), as rows hold them. */
  #getByValues(values: readonly unknown[], parts: readonly (KeyPart | undefined)[]): Row | undefined {
    if (this.#byValues === undefined) {
      this.#byValues = new SecondaryIndex(this.#codecs.filter(({ isScalar }) => !isScalar).map(({ name }) => name))
      for (const row of this.values()) this.#byValues.add(row)
    }
    const candidates = this.#byValues.get(values.filter((_, place) => this.#codecs[place]?.isScalar === false))
    const [row, other] = candidates.filter((candidate) =>
      this.#codecs.every((codec, place) => parts[place] === codec.fromValue(candidate[codec.name])),
    )
    if (other === undefined) return row
    throw new InvalidInputError(`Several keys of ${this.table.tableName} are the same value in JavaScript.`, {
      code: 'invalid_key',
      hint: 'Pass the texts as SQL prints them.',
    })
  }
}
