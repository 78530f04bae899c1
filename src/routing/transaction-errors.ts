import { messageOf } from '../core/index.ts'
import { toTrunklineError } from '../postgres/index.ts'
import {
  isNodeFailure,
  isRecoveryConflict,
  isWriteRefused,
  ReadOnlyTransactionError,
  RecoveryConflictError,
  TransactionAbortedError,
} from './errors.ts'
import type { Lease } from './request.ts'

/** What failed. */
export interface FailedStatement {
  readonly statement: string
  readonly intent: 'read' | 'write'
  readonly lease: Lease
  readonly label: string | undefined
}

/** What the caller sees of the error of a statement: pg's own, where routing has nothing to say to it. */
export function explainFailure(error: unknown, { statement, intent, lease, label }: FailedStatement): unknown {
  const details = { node: lease.node.name, statement, label }
  if (intent === 'read' && isWriteRefused(error)) {
    return new ReadOnlyTransactionError(`A read-only transaction cannot run: ${statement.trim().slice(0, 200)}`, {
      code: 'read_only_transaction',
      hint: 'Use trunkline.write, or onWrite: "retryOnPrimary".',
      details,
      cause: error,
    })
  }
  if (!lease.isPrimary && isRecoveryConflict(error)) {
    return new RecoveryConflictError(
      `${lease.node.name} cancelled a statement to go on replaying: ${messageOf(error)}.`,
      {
        code: 'recovery_conflict',
        retryable: true,
        hint: 'Run the transaction again; for long reads raise max_standby_streaming_delay or set hot_standby_feedback.',
        details,
        cause: error,
      },
    )
  }
  return isNodeFailure(error) ? toTrunklineError(error, `A statement on ${lease.node.name}`) : error
}

export function writeInReadOnly(label: string | undefined): ReadOnlyTransactionError {
  return new ReadOnlyTransactionError('A write was called inside of a read-only transaction.', {
    code: 'write_in_read_only',
    hint: 'Make the outer one a write, or pass requiresNew: true for a transaction of its own.',
    details: { label },
  })
}

export function firstFailed(cause: Error): Error {
  return new TransactionAbortedError('The transaction is over: its first statement failed.', {
    code: 'transaction_aborted',
    hint: 'Let the error of a statement through.',
    cause,
  })
}

export function endedBefore(cause: Error | undefined): Error {
  return new TransactionAbortedError('The transaction has ended; this statement was not sent.', {
    code: 'transaction_ended',
    hint: 'Await every statement before the function ends, and let none outlive a failed one (Promise.all).',
    cause,
  })
}

/** What its function sent ended it, and what came after that ran in none. */
export function endedInside(details: { readonly node: string; readonly label: string | undefined }): Error {
  return new TransactionAbortedError('The transaction was ended by a COMMIT or ROLLBACK inside of its function.', {
    code: 'transaction_ended',
    hint: 'Leave both to trunkline: throw to roll back, and look what was committed here.',
    details,
  })
}
