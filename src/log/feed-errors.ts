import { TrunklineError } from '../core/index.ts'

/** Why a follower is stale whose table cannot be read. */
export function tableLocked(table: string): TrunklineError {
  return new TrunklineError(`Table ${table} is locked by another session.`, {
    code: 'table_locked',
    retryable: true,
    hint: 'Somebody holds it in ACCESS EXCLUSIVE mode (TRUNCATE or DDL in an open transaction): see pg_locks.',
    details: { table },
  })
}

const otherLogCode = 'other_log'

/** A copy is of another log than the one that is read: trunkline was installed anew, or two URLs lead to two databases. */
export function otherLog(expected: string | undefined, found: string | undefined): TrunklineError {
  return new TrunklineError('Tables and changes are read from different logs.', {
    code: otherLogCode,
    retryable: true,
    hint: 'url and listenUrl must lead to one database. After a fail-over connections to the old server go by and by.',
    details: { expected, found },
  })
}

export function isOtherLog(error: unknown): boolean {
  return error instanceof TrunklineError && error.code === otherLogCode
}
