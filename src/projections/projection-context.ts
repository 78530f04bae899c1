import type { Pool } from 'pg'
import type { Logger } from '../core/index.ts'
import type { EventStore } from '../events/index.ts'
import type { InlineProjections } from './inline-projections.ts'
import type { ProjectionPools } from './projection-pools.ts'
import type { ProjectionStore } from './projection-store.ts'

/** What the projections of a process stand on. */
export interface ProjectionContext {
  readonly schema: string
  readonly events: EventStore
  readonly inline: InlineProjections
  readonly store: ProjectionStore
  readonly pools: () => ProjectionPools
  /** The application's. */
  readonly pool: () => Pool
  /** Awaited before a projection starts: then it is known which server is the primary. */
  readonly ready: () => Promise<void>
  readonly pollIntervalMs: number
  readonly logger: Logger
}
