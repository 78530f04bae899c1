import type { ClientConfig } from 'pg'
import type { Logger } from '../core/index.ts'

/** What a relay stands on. */
export interface RelayContext {
  readonly schema: string
  /** Connections for reading and for bookkeeping are made from it; asked for at each, as the primary may be another one by then. */
  readonly config: ClientConfig
  /** A direct connection for LISTEN, asked for likewise; false: poll only. */
  readonly listenConfig: ClientConfig | false
  /** True where the primary is another server than the configured one: it was promoted, and took the places along. */
  readonly hasMoved?: () => boolean
  /** Awaited before a relay starts: then it is known which server is the primary. */
  readonly ready?: () => Promise<void>
  readonly pollIntervalMs: number
  readonly minIntervalMs: number
  readonly logger: Logger
}
