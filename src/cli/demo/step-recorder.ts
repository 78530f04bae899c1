import { type CacheChange, type Row } from '../../index.ts'
import { nowMs } from './clock.ts'
import { type Seen } from './messages.ts'

/**
 * Gathers what the caches of one process tell about one step. They step ahead together and tell it one after the other,
 * without anything in between, so what comes in one turn of the event loop is one step.
 */
export class StepRecorder {
  readonly #report: (seen: Seen) => void
  #rows = new Map<number, number>()
  #atMs = 0

  constructor(report: (seen: Seen) => void) {
    this.#report = report
  }

  /** Rows of the first load (revision 0) and rows that went are not told apart from others, so they are left out. */
  add(changes: readonly CacheChange[]): void {
    if (this.#atMs === 0) {
      this.#atMs = nowMs()
      queueMicrotask(() => this.#finish())
    }
    for (const { new: row } of changes) this.#count(row)
  }

  #count(row: Row | undefined): void {
    const revision = Number(row?.['revision'] ?? 0)
    if (revision > 0) this.#rows.set(revision, (this.#rows.get(revision) ?? 0) + 1)
  }

  #finish(): void {
    const revisions = Array.from(this.#rows, ([revision, rows]) => ({ revision, rows }))
    const seen: Seen = { atMs: this.#atMs, revisions }
    this.#rows = new Map()
    this.#atMs = 0
    if (revisions.length > 0) this.#report(seen)
  }
}
