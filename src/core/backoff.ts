/** First wait after a failure, in milliseconds. */
const firstMsDefault = 50
/** Longest wait between two attempts, in milliseconds. */
const maxMsDefault = 5_000

interface BackoffLimits {
  readonly firstMs?: number
  readonly maxMs?: number
}

/**
 * Milliseconds to wait before attempt `attempt` (from 1): doubles from `firstMs` (50) to `maxMs` (5,000), of which the upper
 * half is random, so that a fleet that lost the same server does not come back in step.
 */
export function backoffMs(attempt: number, limits: BackoffLimits = {}): number {
  const { firstMs = firstMsDefault, maxMs = maxMsDefault } = limits
  const ceiling = Math.min(maxMs, firstMs * 2 ** Math.min(attempt - 1, 30))
  return ceiling / 2 + (Math.random() * ceiling) / 2
}
