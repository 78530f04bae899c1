import { DatabaseError } from 'pg'
import { ConnectionError, InvalidInputError, messageOf, TrunklineError } from '../core/index.ts'

/** trunkline's own SQLSTATEs (class TL) and the codes they become. */
const ownCodes: Readonly<Record<string, string>> = {
  TL001: 'unknown_table',
  TL002: 'not_a_table',
  TL003: 'no_privilege',
  TL004: 'unknown_column',
  TL005: 'invalid_argument',
  TL006: 'invalid_filter',
  TL007: 'lost_position',
  TL008: 'no_transaction',
  TL009: 'other_topics',
  TL010: 'version_conflict',
  TL011: 'immutable_event',
  TL012: 'event_id_taken',
  TL013: 'unsettled_order',
  TL014: 'projection_failed',
}

const networkCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOTFOUND',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'EAI_AGAIN',
  'ENOENT',
  'EACCES',
])

/** Lock not available, statement cancelled; whole classes: 40, transaction rolled back, and 53, no room (disk, memory, locks). */
const passing = /^(?:55P03$|57014$|40|53)/

/** SQLSTATE of an error of the server, undefined for anything else. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof DatabaseError ? error.code : undefined
}

/** True when the connection is gone or never was, so that only a new one can help. */
export function isConnectionFailure(error: unknown): boolean {
  if (error instanceof ConnectionError) return true
  const state = sqlStateOf(error)
  // 08: connection; 57P01 to 57P05: shutdown, crash, starting up, dropped, idle; 53300: too many connections.
  if (state !== undefined) return state.startsWith('08') || state.startsWith('57P') || state === '53300'
  if (error instanceof AggregateError) return error.errors.some(isConnectionFailure)
  if (!(error instanceof Error)) return false
  const { code } = error as NodeJS.ErrnoException
  return (code !== undefined && networkCodes.has(code)) || /connection|timeout|socket/i.test(error.message)
}

/**
 * What a caller of the library sees of a driver's error: the server's own errors of class TL by their code and hint,
 * connection failures as retryable ConnectionError, the rest with its SQLSTATE, retryable where the server may do it another time.
 */
export function toTrunklineError(error: unknown, doing: string): TrunklineError {
  if (error instanceof TrunklineError) return error
  const state = sqlStateOf(error)
  const hint = error instanceof DatabaseError ? error.hint : undefined
  const own = state === undefined ? undefined : ownCodes[state]
  if (own !== undefined) return new InvalidInputError(`${messageOf(error)}.`, { code: own, hint, cause: error })
  if (state === '42501') {
    return new InvalidInputError(`${doing}: ${messageOf(error)}.`, {
      code: 'no_privilege',
      hint: hint ?? 'Run as the owner of the schema, or grant the right.',
      cause: error,
    })
  }
  if (state === '28P01' || state === '28000' || state === '3D000') {
    return new ConnectionError(`${doing}: ${messageOf(error)}.`, {
      code: 'connection_refused',
      hint: 'Check user, password and database of the URL.',
      cause: error,
    })
  }
  if (isConnectionFailure(error)) {
    return new ConnectionError(`${doing}: ${messageOf(error)}.`, {
      code: 'connection_failed',
      retryable: true,
      hint: messageOf(error).includes('does not support SSL')
        ? 'Switch ssl on in the server, or say sslmode=disable in the URL.'
        : 'Check that the server runs and that host and port of the URL are right.',
      cause: error,
    })
  }
  return new TrunklineError(`${doing}: ${messageOf(error)}`, {
    code: state === undefined ? 'unexpected' : `sqlstate_${state}`,
    retryable: state !== undefined && passing.test(state),
    hint,
    cause: error,
  })
}
