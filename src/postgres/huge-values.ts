import type { Duplex } from 'node:stream'
import type { ClientBase } from 'pg'
import { guardData, TrunklineError } from '../core/index.ts'

const code = 'value_too_large'

/** True when a value was larger than JavaScript can hold. */
export function isTooLarge(error: unknown): boolean {
  return error instanceof TrunklineError && error.code === code
}

/**
 * The driver makes a string of each value, and JavaScript has none of more than 512 MB: it throws where the socket's data
 * arrive, which nobody can catch and which ends the process. With this the connection breaks instead, and the statement
 * fails with `value_too_large`. For a client that is connected; twice is harmless.
 */
export function guardAgainstHugeValues(client: ClientBase): void {
  const stream = (client as unknown as { connection?: { stream?: Duplex } }).connection?.stream
  if (stream !== undefined) guardData(stream, tooLarge)
}

function tooLarge(thrown: unknown): TrunklineError | undefined {
  if ((thrown as NodeJS.ErrnoException).code !== 'ERR_STRING_TOO_LONG') return undefined
  return new TrunklineError('A value has more than 512 MB as text, which JavaScript cannot hold.', {
    code,
    hint: 'Leave its column out (columns of a cache, exclude of a capture).',
    cause: thrown,
  })
}
