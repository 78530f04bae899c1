import { createHash } from 'node:crypto'
import { type Row } from '../../index.ts'
import { type TableFingerprint } from './messages.ts'
import { type DemoTable } from './tables.ts'

/** Bytes of a row's hash. */
const hashBytes = 8

/**
 * Takes the fingerprint of a table's rows, whoever holds them: the hash of each in the order of their keys, and one over
 * all. A row counts as it is decoded: the names and the order of its columns, the types and the values.
 */
export function fingerprintOf(table: DemoTable, rows: Iterable<Row>): TableFingerprint {
  const sorted = inOrder(table, rows)
  const hashes = Buffer.alloc(sorted.length * hashBytes)
  const columns = Object.keys(sorted[0] ?? {})
  for (const [place, row] of sorted.entries()) writeHash(row, columns, hashes, place * hashBytes)
  const digest = createHash('sha256').update(columns.join('\n')).update(hashes).digest('hex')
  return { table: table.name, hashes, digest }
}

/** The rows in the order of their keys. */
export function inOrder(table: DemoTable, rows: Iterable<Row>): Row[] {
  return [...rows].toSorted((left, right) => {
    for (const column of table.key) {
      const [a, b] = [left[column] as string | number, right[column] as string | number]
      if (a !== b) return a < b ? -1 : 1
    }
    return 0
  })
}

/** A row's key, as JSON. */
export function keyOf(table: DemoTable, row: Row): string {
  return JSON.stringify(table.key.map((column) => row[column]))
}

/** A row as it is shown. */
export function textOf(row: Row): string {
  return JSON.stringify(row)
}

/**
 * Two multiplicative hashes of 32 bits each, mixed at the end (cyrb53, public domain). Six processes hash 170,000 rows
 * time and again: SHA-256 of each row's JSON takes five times as long.
 */
function writeHash(row: Row, columns: readonly string[], target: Buffer, offset: number): void {
  let a = 0xdeadbeef
  let b = 0x41c6ce57
  for (const column of columns) {
    const value = row[column]
    const isText = typeof value === 'string'
    const text = isText ? value : (JSON.stringify(value) ?? 'undefined')
    for (let place = 0; place < text.length; place += 1) {
      const unit = text.charCodeAt(place)
      a = Math.imul(a ^ unit, 2_654_435_761)
      b = Math.imul(b ^ unit, 1_597_334_677)
    }
    // Where a value ends, and whether it was a text.
    const end = isText ? 0x1_0001 : 0x1_0002
    a = Math.imul(a ^ end, 2_654_435_761)
    b = Math.imul(b ^ end, 1_597_334_677)
  }
  const mixedA = Math.imul(a ^ (a >>> 16), 2_246_822_507) ^ Math.imul(b ^ (b >>> 13), 3_266_489_909)
  const mixedB = Math.imul(b ^ (b >>> 16), 2_246_822_507) ^ Math.imul(mixedA ^ (mixedA >>> 13), 3_266_489_909)
  target.writeInt32LE(mixedA, offset)
  target.writeInt32LE(mixedB, offset + 4)
}
