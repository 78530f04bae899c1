import { DatabaseError } from 'pg'
import { ConnectionError, TrunklineError } from '../core/index.ts'
import { isConnectionFailure, sqlStateOf } from '../postgres/index.ts'

/**
 * A read-only transaction tried to write. It was rolled back and was not run again: say `trunkline.write`, or pass
 * `onWrite: 'retryOnPrimary'` where running the function twice does no harm.
 */
export class ReadOnlyTransactionError extends TrunklineError {
  override readonly name = 'ReadOnlyTransactionError'
}

/** No replica is recent enough for this read, and the fallback is not the primary, or the primary cannot tell. Retryable. */
export class ReplicaLagError extends TrunklineError {
  override readonly name = 'ReplicaLagError'
}

/** No replica can be reached, and the fallback is not the primary. Retryable. */
export class ReplicaUnavailableError extends TrunklineError {
  override readonly name = 'ReplicaUnavailableError'
}

/** No server is known to be the primary: none is out of recovery (`no_primary`), or two are (`two_primaries`). */
export class NoPrimaryError extends TrunklineError {
  override readonly name = 'NoPrimaryError'
}

/** The replica cancelled a statement so that it could go on replaying, after rows had been handed out. Retryable. */
export class RecoveryConflictError extends TrunklineError {
  override readonly name = 'RecoveryConflictError'
}

/**
 * A promotion lost what a token stands for: the new primary had not got it. Other writes of that moment may have moved the token
 * beyond its own write, so that this one may have survived: look. Told once in a session, which goes on from the new primary.
 */
export class WriteLostError extends TrunklineError {
  override readonly name = 'WriteLostError'
}

/** COMMIT did not commit: a statement had failed before, or a joined transaction. All was rolled back. */
export class TransactionAbortedError extends TrunklineError {
  override readonly name = 'TransactionAbortedError'
}

/** The connection broke while COMMIT was under way: it may have committed or not. Look before you do it again. */
export class CommitOutcomeUnknownError extends TrunklineError {
  override readonly name = 'CommitOutcomeUnknownError'
}

/** The transaction was not over in its time, or no connection came free; it was rolled back. Retryable. */
export class RoutingTimeoutError extends TrunklineError {
  override readonly name = 'RoutingTimeoutError'
}

/** 25006: a statement that writes, in a read-only transaction or on a standby. */
const readOnlyState = '25006'
/** 0A000, on BEGIN READ WRITE: the server is in recovery. */
const notSupportedState = '0A000'

/**
 * True when a standby stopped a statement for the sake of replay. By code, as messages are translated: nothing else gives
 * these on a standby, where no transaction is serializable and none takes row locks.
 */
export function isRecoveryConflict(error: unknown): boolean {
  const state = sqlStateOf(error)
  return state === '40001' || state === '40P01'
}

/** True when a statement failed because it writes. */
export function isWriteRefused(error: unknown): boolean {
  return sqlStateOf(error) === readOnlyState
}

/** True when BEGIN READ WRITE was refused: this server is a standby, whatever it was before. */
export function isStandbyRefusal(error: unknown): boolean {
  return sqlStateOf(error) === notSupportedState || isWriteRefused(error)
}

/** Reads that fail with a server are opened elsewhere at most this often. */
export const serverFailuresMax = 2

/** Why a read of which nothing was shown may be run once more on another server; undefined: it may not. */
export function againElsewhere(error: unknown, failures: number): 'conflict' | 'node-failed' | undefined {
  if (isRecoveryConflict(error)) return failures < 1 ? 'conflict' : undefined
  return isNodeFailure(error) && failures < serverFailuresMax ? 'node-failed' : undefined
}

/** True when the server or the way to it failed, not the statement. */
export function isNodeFailure(error: unknown): boolean {
  if (error instanceof DatabaseError) return isConnectionFailure(error)
  // Our own refusals (no connection free, self_deadlock) say nothing of the server, whatever words they use.
  if (error instanceof TrunklineError && !(error instanceof ConnectionError)) return false
  return isConnectionFailure(error) || (error instanceof Error && error.message.includes('not queryable'))
}
