import { InvalidInputError, TrunklineError } from '../core/index.ts'
import type { FetchedRows } from '../log/index.ts'
import type { PreparedChange, Row, RowChange, Rows } from './rows.ts'
import { replaced, StoredRows } from './stored-rows.ts'

/** A table without key is a multiset: rows are told apart by all they hold. */
export class KeylessRows extends StoredRows implements Rows {
  readonly #rows = new Map<string, Row[]>()
  #size = 0

  get size(): number {
    return this.#size
  }

  *values(): Generator<Row> {
    for (const same of this.#rows.values()) yield* same
  }

  get(): Row | undefined {
    throw new InvalidInputError(`${this.table.tableName} has no primary key to look rows up by.`, {
      code: 'no_key',
      hint: 'Define an index: cache(table, { indexes: { name: [columns] } }), or give the table a primary key.',
    })
  }

  load({ rows, prefix }: FetchedRows): void {
    for (const values of rows) this.#add(values[0] as string, this.rowOf(values, prefix))
  }

  prepare({ rows, prefix }: FetchedRows): PreparedChange {
    const last = rows.findLastIndex((values) => values[0] === 't')
    const steps = rows.slice(last + 1).map((values) => ({
      before: values[1] as string | null,
      after: values[2] as string | null,
      row: values[2] === null ? undefined : this.rowOf(values, prefix),
    }))
    this.#check(steps, last >= 0)
    return () => {
      const changes: RowChange[] = last >= 0 ? this.#clear() : []
      for (const { before, after, row } of steps) {
        if (before === after) continue
        const old = before === null ? undefined : this.#take(before)
        if (after !== null && row !== undefined) this.#add(after, row)
        changes.push({ old, new: row })
      }
      return changes
    }
  }

  difference(next: Rows): RowChange[] {
    if (!(next instanceof KeylessRows)) return replaced(this, next)
    const changes: RowChange[] = []
    for (const [identity, same] of this.#rows) {
      const left = next.#rows.get(identity)?.length ?? 0
      changes.push(...same.slice(left).map((row) => ({ old: row, new: undefined })))
    }
    for (const [identity, same] of next.#rows) {
      const had = this.#rows.get(identity)?.length ?? 0
      changes.push(...same.slice(had).map((row) => ({ old: undefined, new: row })))
    }
    return changes
  }

  /** Every row that goes must be there: if not, the copy is not what the log speaks of. */
  #check(steps: readonly { before: string | null; after: string | null }[], isTruncated: boolean): void {
    const balance = new Map<string, number>()
    for (const { before, after } of steps) {
      if (before !== null) {
        const count = (balance.get(before) ?? (isTruncated ? 0 : (this.#rows.get(before)?.length ?? 0))) - 1
        if (count < 0)
          throw new TrunklineError(`A row that is to go is not in the copy of ${this.table.tableName}.`, {
            code: 'copy_diverged',
          })
        balance.set(before, count)
      }
      if (after !== null)
        balance.set(after, (balance.get(after) ?? (isTruncated ? 0 : (this.#rows.get(after)?.length ?? 0))) + 1)
    }
  }

  #add(identity: string, row: Row): void {
    const same = this.#rows.get(identity)
    if (same === undefined) this.#rows.set(identity, [row])
    else same.push(row)
    this.#size += 1
    this.indexRow(row)
  }

  #take(identity: string): Row | undefined {
    const same = this.#rows.get(identity)
    const row = same?.pop()
    if (row === undefined) return undefined
    if (same?.length === 0) this.#rows.delete(identity)
    this.#size -= 1
    this.unindexRow(row)
    return row
  }

  #clear(): RowChange[] {
    const all = Array.from(this.values(), (old) => ({ old, new: undefined }))
    for (const { old } of all) this.unindexRow(old)
    this.#rows.clear()
    this.#size = 0
    return all
  }
}
