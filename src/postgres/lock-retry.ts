import { backoffMs, pause, TrunklineError } from '../core/index.ts'
import { sqlStateOf } from './errors.ts'

/** How long one attempt waits for a lock, in milliseconds: as long may writers have to queue behind it. */
export const lockTimeoutMs = 1_000

/** Lock not available, deadlock, and a serialization failure of the catalogs ("tuple concurrently updated"). */
const contentionStates = new Set(['55P03', '40P01', '40001', 'XX000'])

export interface LockRetryOptions {
  /** How long to go on trying, in milliseconds. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** Ends the trying early, with the last error. */
  readonly signal?: AbortSignal | undefined
  /** Called before each new attempt. */
  readonly onRetry?: (attempt: number, error: unknown) => void
}

/** True when somebody else's lock is the reason of the failure. */
export function isLockContention(error: unknown): boolean {
  const state = sqlStateOf(error) ?? (error instanceof TrunklineError ? sqlStateOf(error.cause) : undefined)
  if (state === 'XX000') return error instanceof Error && error.message.includes('concurrently updated')
  return state !== undefined && contentionStates.has(state)
}

/**
 * Runs an action that takes locks under a lock timeout, again with growing pauses while it cannot have them: a waiting
 * DDL lets every writer of the table queue behind it, so none waits for long.
 */
export async function retryWhileLocked<Result>(
  action: () => Promise<Result>,
  { timeoutMs = 30_000, signal, onRetry }: LockRetryOptions = {},
): Promise<Result> {
  const deadline = performance.now() + timeoutMs
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await action()
    } catch (error) {
      const waitMs = backoffMs(attempt)
      if (!isLockContention(error) || signal?.aborted === true || performance.now() + waitMs >= deadline) throw error
      onRetry?.(attempt, error)
      await pause(waitMs)
    }
  }
}
