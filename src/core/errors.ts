/** What every error of trunkline carries besides its message. */
export interface TrunklineErrorOptions {
  /** Stable, for programs: `unknown_table`, `server_too_old`, … */
  readonly code: string
  /** True when the same call may succeed later without any change. Default false. */
  readonly retryable?: boolean
  /** What to do about it, in one sentence. */
  readonly hint?: string | undefined
  /** The facts the message names, for programs. Never holds a secret. */
  readonly details?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

/**
 * The one error class of the library; `code` tells the kinds apart. The message says what was expected, what was
 * found and, after it, what to do.
 */
export class TrunklineError extends Error {
  override readonly name: string = 'TrunklineError'
  readonly code: string
  readonly retryable: boolean
  readonly hint: string | undefined
  readonly details: Readonly<Record<string, unknown>>

  constructor(message: string, options: TrunklineErrorOptions) {
    super(options.hint === undefined ? message : `${message} ${options.hint}`, { cause: options.cause })
    this.code = options.code
    this.retryable = options.retryable ?? false
    this.hint = options.hint
    this.details = options.details ?? {}
  }
}

/** An option, argument or name given by the caller is wrong; the call did nothing. */
export class InvalidInputError extends TrunklineError {
  override readonly name = 'InvalidInputError'
}

/** The server could not be reached, or the connection broke. Retryable. */
export class ConnectionError extends TrunklineError {
  override readonly name = 'ConnectionError'
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}
