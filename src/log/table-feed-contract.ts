import type { TableDescription, TableSelection } from './table-description.ts'

/** Rows as the driver gave them: `prefix` values that identify the row, then the row's columns. */
export interface FetchedRows {
  readonly prefix: number
  readonly rows: readonly (readonly unknown[])[]
}

/** What a fresh copy or a step ahead leads to. */
export interface FollowStep {
  /** The step is (or begins with) a fresh copy: what was there before counts no more. */
  readonly isFresh: boolean
  /** When the step was begun, by performance.now(): the copy is at least that fresh. */
  readonly lookedAt: number
}

/**
 * What follows a table through the feed. The feed calls, for each round: `stage…` (may throw, nothing is visible yet),
 * then `commit` of all followers without anything in between, then `announce` of each.
 */
export interface TableFollower {
  readonly selection: TableSelection
  /** Rows that it holds. */
  readonly size: number
  /** A fresh copy begins: of this table, as it is now. Called again for each one, also after DDL. */
  beginCopy(table: TableDescription): void
  /** A page of the copy. Not visible before `commit`. */
  stageCopy(page: FetchedRows): void
  /** What changed since; after `beginCopy` it applies to the staged copy. Throws when it contradicts the copy. */
  stageChanges(changes: FetchedRows): void
  /** Makes all that was staged visible, at once. Does not throw. */
  commit(step: FollowStep): void
  /** Tells listeners what `commit` changed. */
  announce(): void
  /** The copy cannot be brought up to date at present, and why. Called once until `commit` succeeds again. */
  stale(cause: Error): void
}
