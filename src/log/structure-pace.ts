/** How often tables are looked at for DDL and partitions when nothing else happens, in milliseconds. */
const structureCheckMs = 5_000
/** The same after a change, in milliseconds: it may be the first one after DDL. */
const structureCheckAfterChangeMs = 1_000
/** And under load at least this many times as long as a round takes. */
const structureCheckShare = 50

/** When tables are looked at for DDL again, in milliseconds after the last time. */
export function structureDueAfterMs(round: {
  /** Something changed since the last time. */
  readonly hasChanged: boolean
  /** What the last round took, in milliseconds. */
  readonly roundMs: number
  /** A notification came: better not between it and its changes, unless nothing but notifications comes. */
  readonly isBusy: boolean
}): number {
  const afterChangeMs = Math.max(structureCheckAfterChangeMs, structureCheckShare * round.roundMs)
  const intervalMs = round.hasChanged ? Math.min(afterChangeMs, structureCheckMs) : structureCheckMs
  return round.isBusy ? 2 * intervalMs : intervalMs
}
