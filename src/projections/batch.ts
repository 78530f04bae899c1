import type pg from 'pg'
import { TrunklineError } from '../core/index.ts'
import type { RecordedEvent } from '../events/index.ts'
import { inTransaction, sqlStateOf } from '../postgres/index.ts'
import { otherHistory, PartitionLost, ProjectionError, type ProjectionFailure, transactionEnded } from './errors.ts'
import { Handling, type OpenedEvent, openEvents } from './handling.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import type { Build, Holding } from './projection-store.ts'
import { tableNameOf } from './tables.ts'

/** The current transaction is aborted: somebody before swallowed an error of the server. */
const abortedState = '25P02'

/** A batch that failed. `index`: of the event it failed at; undefined: nobody knows which. */
export class BatchFailure extends Error {
  readonly index: number | undefined

  constructor(cause: unknown, index: number | undefined) {
    super('A batch failed.', { cause })
    this.index = index
  }
}

interface BatchOptions {
  readonly context: ProjectionContext
  readonly definition: Definition
  readonly build: Build
  readonly holding: Holding
  readonly signal: AbortSignal
}

/** What a batch does in its transaction, besides handling events. */
export interface BatchWork {
  readonly from: bigint
  readonly to: bigint
  /** Events that are handled, in order. */
  readonly events: readonly RecordedEvent[]
  /** Done before the checkpoint is moved. */
  readonly also?: (client: pg.PoolClient) => Promise<void>
}

/** Runs batches of one partition: each is one transaction, and ends with the checkpoint (docs/projections.md, P4). */
export class Batches {
  readonly #options: BatchOptions

  constructor(options: BatchOptions) {
    this.#options = options
  }

  /** @throws BatchFailure, PartitionLost; what the connection throws. */
  async run(work: BatchWork): Promise<void> {
    const { context, definition, build, holding } = this.#options
    // An event can be at fault for what fails in COMMIT, too: a constraint that is looked at then.
    let isCommitting = false as boolean
    const run = async (client: pg.PoolClient): Promise<void> => {
      if (!(await context.store.begin(client, holding, definition.handlerTimeoutMs))) throw new PartitionLost()
      const isGuarded = build.state === 'building' && build.tables.length > 0
      const before = isGuarded ? await context.store.rowsWritten(client, build.tables) : 0n
      await this.#handleAll(client, work.events)
      await work.also?.(client)
      const after = isGuarded ? await context.store.rowsWritten(client, build.tables) : 0n
      if (after !== before) throw blamed(definition.name, work, wroteToLive(build))
      const outcome = await context.store.save(client, holding, work.from, work.to)
      if (outcome === 'lost') throw new PartitionLost()
      if (outcome === 'other_history') throw otherHistory(definition.name, work.from.toString())
      if (outcome === 'ended') throw blamed(definition.name, work, transactionEnded)
      isCommitting = true
    }
    try {
      // What a handler left running ends by the time-out of its statement.
      await inTransaction(context.pools().work, run, definition.handlerTimeoutMs + 1_000)
    } catch (error) {
      const state = sqlStateOf(error)
      const isRefused = state === abortedState || (isCommitting && state?.startsWith('23') === true)
      throw isRefused ? blamed(definition.name, work, { cause: error }) : error
    }
  }

  async #handleAll(client: pg.PoolClient, stored: readonly RecordedEvent[]): Promise<void> {
    const { definition, build, signal } = this.#options
    const handling = new Handling(client, {
      definition,
      nameOf: tableNameOf(build),
      replayUntil: build.state === 'building' ? 2n ** 63n : BigInt(build.replayUntil),
      timeoutMs: definition.handlerTimeoutMs,
      signal,
    })
    try {
      for (const [index, event] of (await this.#open(stored, client)).entries()) {
        try {
          await handling.handle(event)
        } catch (error) {
          throw new BatchFailure(error, index)
        }
      }
    } finally {
      handling.end()
    }
  }

  async #open(stored: readonly RecordedEvent[], client: pg.PoolClient): Promise<OpenedEvent[]> {
    const { context, definition } = this.#options
    try {
      return await openEvents(context.events, stored, client)
    } catch (error) {
      // An upcaster failed, or personal data cannot be read: alone it will be found.
      if (!(error instanceof TrunklineError) || error.retryable) throw error
      throw blamed(definition.name, { events: stored }, { cause: error })
    }
  }
}

/** Which event it was is known if there is only one. */
function blamed(projection: string, { events }: Pick<BatchWork, 'events'>, failure: ProjectionFailure): unknown {
  const [event] = events
  if (event === undefined) return failure.cause ?? new Error(failure.found)
  if (events.length > 1) return new BatchFailure(failure.cause, undefined)
  return new BatchFailure(new ProjectionError(projection, event, failure), 0)
}

function wroteToLive({ tables }: Build): ProjectionFailure {
  return {
    code: 'wrote_to_live',
    found: `while it is rebuilt its handler writes to a live table (${tables.join(', ')}).`,
    hint: "Write to context.table('name'), which is the table that is being built.",
  }
}
