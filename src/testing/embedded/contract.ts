import { type EmbeddedPostgresVersion } from './binaries.ts'

/** How a server is stopped, as `pg_ctl stop -m` names it. */
export type StopMode =
  /** Waits until every client has disconnected. */
  | 'smart'
  /** Disconnects the clients, rolls back, writes a checkpoint. */
  | 'fast'
  /** Ends at once as in a crash; the next start recovers from the WAL. */
  | 'immediate'

/** Settings of one embedded server; every one but the version has a default. */
export interface EmbeddedPostgresOptions {
  /** Major version; its binaries come from npm, see `embedded/binaries.ts`. */
  readonly version: EmbeddedPostgresVersion
  /**
   * Where the data lies. Default: a new temporary directory, removed by `dispose()`. A directory that is given is
   * initialised when it is empty, and kept.
   */
  readonly dataDirectory?: string
  /** TCP port on 127.0.0.1, kept over restarts. Default: a free one. */
  readonly port?: number
  /**
   * Lines for `postgresql.conf`, for example `{ fsync: 'off' }` for data that may be lost with the machine. Written at
   * every first start of this object, after what the file held before.
   */
  readonly settings?: Readonly<Record<string, string>>
  /** Name of the superuser, who needs no password. Default `postgres`. */
  readonly superuser?: string
  /**
   * Makes this server a streaming replica of another one of the same version and superuser. Its data starts as a copy,
   * for which the primary is stopped (mode `fast`) and started again.
   */
  readonly standbyOf?: EmbeddedPostgres
  /** How long a start or stop may take. Default 60,000 ms. */
  readonly timeoutMs?: number
}

/** Parts of a connection URL that differ from the superuser's on database `postgres`. */
export interface ConnectionUrlOptions {
  readonly database?: string
  readonly user?: string
  readonly password?: string
}

/** A PostgreSQL server of our own. Calls are carried out one after the other; starting twice or stopping twice is harmless. */
export interface EmbeddedPostgres extends AsyncDisposable {
  readonly version: EmbeddedPostgresVersion
  readonly port: number
  /** Connects the superuser to the database `postgres`. */
  readonly url: string
  readonly dataDirectory: string
  /** What the server wrote to its log, over all its starts. */
  readonly logFile: string
  /** The postmaster's process id; undefined while it is down. */
  readonly pid: number | undefined
  urlFor(options: ConnectionUrlOptions): string
  /** Resolves when the server takes connections. */
  start(): Promise<void>
  /** Resolves when the server has ended. Default mode `fast`. */
  stop(mode?: StopMode): Promise<void>
  restart(mode?: StopMode): Promise<void>
  /** Stops and removes the temporary directory, with the data unless `dataDirectory` was given. */
  dispose(): Promise<void>
}
