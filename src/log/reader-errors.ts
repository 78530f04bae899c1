import { TrunklineError } from '../core/index.ts'
import { sqlStateOf, toTrunklineError } from '../postgres/index.ts'

/** What a caller sees of an error while the log is read. */
export function readerError(error: unknown, schema: string): TrunklineError {
  const state = sqlStateOf(error)
  if (state === '55000') {
    return new TrunklineError(
      'The server is a standby: it cannot tell which transactions are open, so the log is read on the primary.',
      {
        code: 'standby',
        hint: 'Connect to the primary.',
        cause: error,
      },
    )
  }
  if (state === '3F000' || state === '42883' || state === '42P01') {
    return new TrunklineError(`There is no log of trunkline in schema "${schema}", or it is of an older version.`, {
      code: 'not_installed',
      hint: 'Run: trunkline migrate',
      details: { schema },
      cause: error,
    })
  }
  return toTrunklineError(error, 'Reading the log')
}
