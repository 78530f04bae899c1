import { DatabaseError } from 'pg'
import { InvalidInputError, messageOf, TrunklineError } from '../core/index.ts'
import { sqlStateOf, toTrunklineError } from '../postgres/index.ts'
import type { ExpectedVersion } from './event.ts'

/** SQLSTATE of a version conflict. */
const conflictState = 'TL010'

/**
 * The stream is not at the expected version: somebody else appended. Retryable: read the stream again, decide again, append with
 * the new version (in a new transaction).
 */
export class VersionConflictError extends TrunklineError {
  override readonly name = 'VersionConflictError'
  readonly stream: string
  readonly expected: ExpectedVersion
  /** The stream's version; 0: there is no stream. Undefined: a transaction of REPEATABLE READ or SERIALIZABLE cannot see it. */
  readonly actual: number | undefined

  constructor(stream: string, expected: ExpectedVersion, actual: number | undefined, cause?: unknown) {
    const found = actual === undefined ? 'changed since the transaction began' : `at version ${actual}`
    super(`Stream ${stream} is ${found}, expected ${String(expected)}.`, {
      code: 'version_conflict',
      retryable: true,
      hint: 'Read the stream again, decide again, and append with its new version.',
      details: { stream, expected: typeof expected === 'bigint' ? expected.toString() : expected, actual },
      cause,
    })
    this.stream = stream
    this.expected = expected
    this.actual = actual
  }
}

/** What a caller sees of an append's error. */
export function appendError(error: unknown, stream: string, expected: ExpectedVersion, schema: string): TrunklineError {
  const state = sqlStateOf(error)
  if (state === conflictState && error instanceof DatabaseError) {
    const { actual } = JSON.parse(error.detail ?? '{}') as { actual?: number }
    return new VersionConflictError(stream, expected, actual, error)
  }
  // Found while it was being written by somebody else: append_repeated() had nothing to tell of yet.
  if (state === '23505' && error instanceof DatabaseError && error.constraint === 'event_id') {
    return new InvalidInputError(`Appending to ${stream}: one of its event ids was taken at the same moment.`, {
      code: 'event_id_taken',
      hint: 'For other events make new ids.',
      details: { stream, detail: error.detail },
      cause: error,
    })
  }
  // A snapshot that is older than somebody's append.
  if (state === '40001') return new VersionConflictError(stream, expected, undefined, error)
  return eventError(error, `Appending to ${stream}`, schema)
}

/** What a caller sees of any other error. */
export function eventError(error: unknown, doing: string, schema: string): TrunklineError {
  const state = sqlStateOf(error)
  if (state === '3F000' || state === '42883' || state === '42P01') {
    return new TrunklineError(`${doing}: schema "${schema}" has no event store.`, {
      code: 'schema_missing',
      hint: 'Run: trunkline migrate (or call migrate()) as the owner of the schema.',
      details: { schema },
      cause: error,
    })
  }
  if (state === '22007' || state === '22008' || state === '22009') {
    return new InvalidInputError(`${doing}: ${messageOf(error)}.`, {
      code: 'invalid_option',
      hint: "Expected a Date, or a time as text: '2026-03-01', '2026-03-01 12:00+00'.",
      cause: error,
    })
  }
  if (state === '40P01') {
    return new TrunklineError(`${doing}: two transactions waited for each other's streams.`, {
      code: 'deadlock',
      retryable: true,
      hint: 'Run the transaction again. Transactions that append to the same streams in the same order do not meet like this.',
      cause: error,
    })
  }
  return toTrunklineError(error, doing)
}
