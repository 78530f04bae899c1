import { backoffMs } from '../core/index.ts'
import type { CheckedRelayOptions } from './relay-options.ts'
import type { DeliveryError } from './sink.ts'

/** Longest wait that a receiver may ask for (Retry-After), in milliseconds: a day. */
export const retryAfterMaxMs: number = 24 * 3_600_000

/** Milliseconds until the next attempt after `attempts` failed: doubling, the upper half random, or what the receiver asked for. */
export function retryDelayMs(
  { retryFirstMs, retryMaxMs }: Pick<CheckedRelayOptions, 'retryFirstMs' | 'retryMaxMs'>,
  attempts: number,
  error?: DeliveryError,
): number {
  const { retryAfterMs = 0 } = error ?? {}
  const asked = Number.isFinite(retryAfterMs) ? Math.min(retryAfterMs, retryAfterMaxMs) : 0
  return Math.ceil(Math.max(asked, backoffMs(attempts, { firstMs: retryFirstMs, maxMs: retryMaxMs })))
}
