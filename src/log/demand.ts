import { TrunklineError } from '../core/index.ts'
import type { TableSubscription } from './table-subscription.ts'

/** Somebody waits until a follower is level with what had committed when it asked. */
export interface Demand {
  readonly subscription: TableSubscription
  /** And with what this transaction did. */
  readonly xid: bigint | undefined
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/** What those who wait are told at the end. */
export function stopped(): TrunklineError {
  return new TrunklineError('The cache was stopped.', {
    code: 'stopped',
    hint: 'Start trunkline, and make the cache again.',
  })
}
