import { InvalidInputError } from '../core/index.ts'

/**
 * A `txid_snapshot`: which transactions are visible. Those below `xmax` that are not in `xip` are (if they committed).
 * Snapshots of one primary are totally ordered by inclusion.
 */
export interface Snapshot {
  readonly xmin: bigint
  readonly xmax: bigint
  /** In progress when it was taken. */
  readonly xip: readonly bigint[]
}

const pattern = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/

/** Reads `xmin:xmax:xip,…`. */
export function parseSnapshot(text: string): Snapshot {
  const match = pattern.exec(text)
  if (match?.[1] === undefined || match[2] === undefined) {
    throw new InvalidInputError(`"${text}" is no transaction snapshot, expected xmin:xmax:xip.`, {
      code: 'invalid_snapshot',
    })
  }
  const list = match[3] ?? ''
  return {
    xmin: BigInt(match[1]),
    xmax: BigInt(match[2]),
    xip: list === '' ? [] : list.split(',').map(BigInt),
  }
}

/** The text PostgreSQL prints and reads. */
export function formatSnapshot(snapshot: Snapshot): string {
  return `${snapshot.xmin}:${snapshot.xmax}:${snapshot.xip.join(',')}`
}

/** True when what transaction `xid` did is visible in the snapshot, provided that it committed. */
export function isVisible(snapshot: Snapshot, xid: bigint): boolean {
  return xid < snapshot.xmax && !snapshot.xip.includes(xid)
}
