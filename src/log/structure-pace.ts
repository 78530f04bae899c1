/** How often tables are looked at for DDL and partitions when nothing else happens, in milliseconds. */
const structureCheckMs = 5_000
/** But no more often than with every fourth poll: it costs several times what a poll does, which adds up in a fleet. */
const structureCheckPolls = 4
/** And at least this often, however rare polls are, in milliseconds. */
const structureCheckMaxMs = 60_000
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
  /** Between looks while nothing happens, in milliseconds. */
  readonly pollIntervalMs: number
}): number {
  const idleMs = Math.min(structureCheckMaxMs, Math.max(structureCheckMs, structureCheckPolls * round.pollIntervalMs))
  const afterChangeMs = Math.max(structureCheckAfterChangeMs, structureCheckShare * round.roundMs)
  const intervalMs = round.hasChanged ? Math.min(afterChangeMs, structureCheckMs) : idleMs
  return round.isBusy ? 2 * intervalMs : intervalMs
}
