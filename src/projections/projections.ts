import type { ClientConfig, Pool } from 'pg'
import type { Logger } from '../core/index.ts'
import type { EventStore } from '../events/index.ts'
import type { ProjectedEvent } from './handler.ts'
import { InlineProjections } from './inline-projections.ts'
import { ParkedEvents } from './parked-events.ts'
import { definitionOf, type ProjectionOptions } from './projection-options.ts'
import { ProjectionPools } from './projection-pools.ts'
import { type ProjectionStatus, projectionStatuses } from './projection-status.ts'
import { ProjectionStore, projectionStoreError } from './projection-store.ts'
import { Projection } from './projection.ts'

export interface ProjectionsOptions {
  readonly schema: string
  readonly events: EventStore
  /** The application's. */
  readonly pool: () => Pool
  /** Of the primary, for connections of their own. */
  readonly config: () => ClientConfig
  readonly ready: () => Promise<void>
  readonly pollIntervalMs: number
  readonly logger: Logger
}

/** The projections of a process, and what the database has of all. As `trunkline.projections`. */
export class Projections {
  /** Events that projections have put aside, of all of them. */
  readonly parked: ParkedEvents
  readonly #options: ProjectionsOptions
  readonly #inline: InlineProjections
  readonly #projections = new Set<Projection>()
  #pools: ProjectionPools | undefined

  constructor(options: ProjectionsOptions) {
    this.#options = options
    this.#inline = new InlineProjections(options.events, options.schema)
    this.parked = new ParkedEvents(options.pool, options.schema)
  }

  /** @throws InvalidInputError `invalid_option`. */
  create<Event extends ProjectedEvent>(options: ProjectionOptions<Event>): Projection {
    const { schema, events, pool, ready, pollIntervalMs, logger } = this.#options
    const pools = (): ProjectionPools => (this.#pools ??= new ProjectionPools(this.#options.config, logger))
    const projection = new Projection(
      {
        schema,
        events,
        inline: this.#inline,
        store: new ProjectionStore(
          { query: async (text, values) => pools().keep.query(text, values) },
          { query: async (text, values) => pools().beat.query(text, values) },
          schema,
        ),
        pools,
        pool,
        ready,
        pollIntervalMs,
        logger,
      },
      definitionOf(options),
    )
    this.#projections.add(projection)
    return projection
  }

  /** All that the database has, whoever runs them. */
  async list(): Promise<ProjectionStatus[]> {
    try {
      return await projectionStatuses(this.#options.pool(), this.#options.schema)
    } catch (error) {
      throw projectionStoreError(error, 'Listing projections', this.#options.schema)
    }
  }

  /** Those of a name share the events parked of it. */
  parkedOf(projection: string): ParkedEvents {
    return new ParkedEvents(this.#options.pool, this.#options.schema, projection)
  }

  /** The primary is another server now. */
  reconnect(): void {
    this.#pools?.reconnect()
  }

  /** Resolves when none of this process runs and its connections are closed. */
  async stop(): Promise<void> {
    await Promise.all([...this.#projections].map((projection) => projection.stop()))
    const pools = this.#pools
    this.#pools = undefined
    await pools?.end()
  }
}
