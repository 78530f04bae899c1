import { inspect } from 'node:util'
import type { Row } from './rows.ts'

interface Bucket {
  readonly rows: Set<Row>
  /** What `get` hands out; made when it is first asked for after a change. */
  list: readonly Row[] | undefined
}

const nothing: readonly Row[] = Object.freeze([])

/** Rows by the values of some columns. */
export class SecondaryIndex {
  readonly columns: readonly string[]
  readonly #buckets = new Map<unknown, Bucket>()

  constructor(columns: readonly string[]) {
    this.columns = columns
  }

  add(row: Row): void {
    const key = this.#keyOf(this.columns.map((column) => row[column]))
    const bucket = this.#buckets.get(key)
    if (bucket === undefined) {
      this.#buckets.set(key, { rows: new Set([row]), list: undefined })
      return
    }
    bucket.rows.add(row)
    bucket.list = undefined
  }

  remove(row: Row): void {
    const key = this.#keyOf(this.columns.map((column) => row[column]))
    const bucket = this.#buckets.get(key)
    if (bucket === undefined) return
    bucket.rows.delete(row)
    bucket.list = undefined
    if (bucket.rows.size === 0) this.#buckets.delete(key)
  }

  /** Rows whose columns hold the values; the same frozen array until one of them changes. */
  get(values: readonly unknown[]): readonly Row[] {
    const bucket = this.#buckets.get(this.#keyOf(values)) ?? this.#buckets.get(this.#keyOf(values.map(asText)))
    if (bucket === undefined) return nothing
    bucket.list ??= Object.freeze([...bucket.rows])
    return bucket.list
  }

  #keyOf(values: readonly unknown[]): unknown {
    if (values.length === 1 && !isObject(values[0])) return values[0]
    return JSON.stringify(values.map(comparable))
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** What two equal values have in common, also as objects, and two different ones have not. */
function comparable(value: unknown): unknown {
  if (value instanceof Date) return { date: value.getTime() }
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString('hex') }
  if (isObject(value))
    return {
      other: inspect(value, {
        depth: Number.POSITIVE_INFINITY,
        maxArrayLength: null,
        maxStringLength: null,
        sorted: true,
      }),
    }
  return typeof value === 'number' || typeof value === 'bigint' ? { [typeof value]: String(value) } : value
}

/** The driver gives int8 and numeric as texts; a caller may write a number. */
function asText(value: unknown): unknown {
  return typeof value === 'number' || typeof value === 'bigint' ? String(value) : value
}
