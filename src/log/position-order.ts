import { isVisible, type Snapshot } from '../postgres/index.ts'
import type { Position } from './position.ts'

/** True when a reader at the position has had the row of the log with this transaction and id. */
export function isCovered(position: Position, xid: bigint, id: bigint): boolean {
  if (isVisible(position.from, xid)) return true
  return position.to !== undefined && id <= (position.afterId ?? 0n) && isVisible(position.to, xid)
}

/**
 * Below 0: `left` was taken before `right`, and sees less. Snapshots of one primary are ordered: the later one has the higher
 * xmax, or fewer transactions in progress below it.
 */
export function compareSnapshots(left: Snapshot, right: Snapshot): number {
  if (left.xmax !== right.xmax) return left.xmax < right.xmax ? -1 : 1
  return right.xip.length - left.xip.length
}

/** Below 0: `left` comes first, as far as their first snapshots tell. */
export function comparePositions(left: Position, right: Position): number {
  const order = compareSnapshots(left.from, right.from)
  if (order !== 0) return order
  if (left.to === undefined || right.to === undefined)
    return Number(left.to !== undefined) - Number(right.to !== undefined)
  const [a, b] = [left.afterId ?? 0n, right.afterId ?? 0n]
  return compareSnapshots(left.to, right.to) || (a < b ? -1 : a > b ? 1 : 0)
}

/** A position that all of these have reached: reading from it misses nothing for any of them. Undefined: there are none. */
export function earliestPosition(positions: readonly Position[]): Position | undefined {
  const first = positions.toSorted(comparePositions)[0]
  if (first?.to === undefined) return first
  const { to, from } = first
  // Inside of different steps places cannot be compared: then from the beginning of the earliest one.
  const isComparable = positions.every(
    (other) =>
      compareSnapshots(other.from, to) >= 0 ||
      (compareSnapshots(other.from, from) === 0 && other.to !== undefined && compareSnapshots(other.to, to) === 0),
  )
  return isComparable ? first : { identity: first.identity, from }
}
