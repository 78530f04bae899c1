/**
 * Milliseconds of the machine's monotonic clock. All processes of one machine read the same clock here, so a moment
 * taken in an instance can be subtracted from one taken in the main process; the wall clock may be set or slewed.
 */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** Milliseconds since `startMs`. */
export function elapsedMs(startMs: number): number {
  return nowMs() - startMs
}

/** To a hundredth: what is below is noise. */
export function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}
