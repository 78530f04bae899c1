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
