import { type Connection, toQueryable } from '../adapters/index.ts'
import { backoffMs, InvalidInputError, type Logger, messageOf, pause } from '../core/index.ts'
import {
  type AppendContext,
  type AppendedEvent,
  type AppendResult,
  type NewEvent,
  type RecordedEvent,
  streamName,
  type StreamParts,
  streamParts,
  timeText,
  VersionConflictError,
  wholeNumber,
} from '../events/index.ts'
import type { Queryable } from '../postgres/index.ts'
import { type AggregateOptions, type Decided, hotMaxDefault, retriesMaxDefault } from './aggregate-options.ts'
import type { EventCatalog, PreparedEvent } from './event-catalog.ts'
import { HotStates, type LoadedState } from './hot-states.ts'
import { loadState, type LoadContext } from './load.ts'
import { Replay } from './replay.ts'
import { Snapshots } from './snapshots.ts'
import type { SubjectKeys } from './subject-keys.ts'
import { Turns } from './turns.ts'
import type { UpcastEvent } from './upcaster.ts'

/** First wait after a conflict, in milliseconds, and the longest. */
const conflictBackoff = { firstMs: 5, maxMs: 200 }

export interface LoadOptions {
  /** The state after that version. Default: the newest. */
  readonly toVersion?: number | undefined
  /** The state as it was then: a Date, or what PostgreSQL reads as a time. */
  readonly asOf?: Date | string | undefined
  /** A transaction to read in. */
  readonly tx?: Connection | undefined
}

/** An aggregate at one version of its stream. */
export interface AggregateState<State> {
  readonly id: string
  readonly stream: string
  /** Of the stream; 0: it has no events. */
  readonly version: number
  readonly state: State
}

export interface HandleOptions extends AppendContext {
  /**
   * The caller's transaction: what is decided exists if and only if it commits. A conflict is then not tried again: run the
   * transaction again. Default: a transaction of its own.
   */
  readonly tx?: Connection | undefined
  /** Attempts after the first one when somebody else was faster. Default: that of the aggregate (10). */
  readonly retriesMax?: number | undefined
}

/** What a command came to. */
export interface Handled<State, Event> extends AggregateState<State> {
  /** What was appended, in order; empty: the command decided nothing. */
  readonly events: readonly (Event & AppendedEvent)[]
}

/** What decides: which events a command leads to, none (an empty list or undefined), or an error. It may be called again. */
export type Decide<State, Event extends UpcastEvent> = (
  state: State,
  aggregate: Omit<AggregateState<State>, 'state'>,
) => Decision<Event> | Promise<Decision<Event>>
type Decision<Event extends UpcastEvent> = Decided<Event> | readonly Decided<Event>[] | undefined

/** What an aggregate needs of the event store. */
export interface AggregateContext {
  readonly schema: string
  readonly pool: () => Queryable
  readonly logger: Logger
  readonly keys: SubjectKeys
  readonly catalog: EventCatalog
  /** Appends events that are prepared. */
  readonly append: (
    stream: StreamParts,
    version: number,
    events: readonly PreparedEvent[],
    options: AppendContext & { readonly tx?: Connection | undefined },
  ) => Promise<AppendResult>
}

/** The aggregates of one type: loads their states and handles their commands. Made by `events.aggregate`. */
export class Aggregate<State, Event extends UpcastEvent> {
  readonly type: string
  readonly #context: AggregateContext
  readonly #load: LoadContext<State, Event>
  readonly #hot: HotStates<State>
  readonly #snapshots: Snapshots<State>
  readonly #turns = new Turns()
  readonly #refreshing = new Set<Promise<void>>()
  readonly #snapshotEvery: number
  readonly #retriesMax: number

  constructor(context: AggregateContext, options: AggregateOptions<State, Event>) {
    const { schema, pool, logger, keys, catalog } = context
    const { stateVersion = 1, snapshotEvery } = options
    this.type = options.type
    this.#context = context
    this.#hot = new HotStates(options.hotMax ?? hotMaxDefault)
    this.#snapshots = new Snapshots({ schema, pool, logger, keys, stateVersion, codec: options.stateCodec })
    this.#snapshotEvery = snapshotEvery ?? Number.POSITIVE_INFINITY
    this.#retriesMax = options.retriesMax ?? retriesMaxDefault
    this.#load = {
      schema,
      keys,
      catalog,
      replay: new Replay(options, catalog, options.unknownEvents === 'ignore'),
      snapshots: this.#snapshots,
      stateVersion: snapshotEvery === undefined ? undefined : stateVersion,
    }
  }

  /**
   * The state of an aggregate: as it is now, exactly, or as it was. The state is the caller's own.
   *
   * @throws EventError `unknown_event_type`, `unknown_schema_version`, `upcaster_failed`, `evolve_failed`, `invalid_payload`,
   *   `personal_data_unreadable`. InvalidInputError `invalid_stream`, `invalid_option`.
   */
  async load(id: string, options: LoadOptions = {}): Promise<AggregateState<State>> {
    const stream = this.#streamOf(id)
    return stateOf(stream, await this.#loadState(stream, options))
  }

  /**
   * Handles a command: loads the state, lets `decide` say which events it leads to, and appends them if nobody else has appended
   * since. If somebody has, all of it is done again, after a wait with jitter, `retriesMax` times; not with `tx`. When `decide` or
   * `evolve` throws, or an event is not as it should be, nothing is appended.
   *
   * @throws what `decide` throws; VersionConflictError after the last attempt; what `load` and `append` throw.
   */
  async handle(id: string, decide: Decide<State, Event>, options: HandleOptions = {}): Promise<Handled<State, Event>> {
    const stream = this.#streamOf(id)
    const name = streamName(stream)
    const { tx, retriesMax = this.#retriesMax, ...context } = options
    wholeNumber(`Handling ${name}`, 'retriesMax', retriesMax, 0)
    // One try; and no waiting for others, who may wait for what the transaction holds.
    if (tx !== undefined) return this.#attempt(stream, decide, { ...context, tx })
    return this.#turns.take(id, () => this.#tryAgain(stream, retriesMax, () => this.#attempt(stream, decide, context)))
  }

  /** Drops what memory holds of a subject. */
  forget(subject: string): void {
    this.#hot.forget(subject)
  }

  /** Resolves when no snapshot is being stored. */
  async settled(): Promise<void> {
    await Promise.all(this.#refreshing)
    await this.#snapshots.settled()
  }

  async #tryAgain<Result>(stream: StreamParts, retriesMax: number, run: () => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await run()
      } catch (error) {
        const isConflict = error instanceof VersionConflictError && error.stream === streamName(stream)
        if (!isConflict || attempt > retriesMax) throw error
        await pause(backoffMs(attempt, conflictBackoff))
      }
    }
  }

  async #attempt(
    stream: StreamParts,
    decide: Decide<State, Event>,
    options: AppendContext & { readonly tx?: Connection | undefined },
  ): Promise<Handled<State, Event>> {
    const { catalog, append } = this.#context
    const name = streamName(stream)
    const loaded = await this.#loadState(stream, { tx: options.tx })
    const { version } = loaded
    const decided = await decide(loaded.state, { id: stream.id, stream: name, version })
    const list = (decided === undefined ? [] : Array.isArray(decided) ? decided : [decided]) as readonly NewEvent[]
    if (list.length === 0) return { ...stateOf(stream, loaded), events: [] }
    const prepared = await catalog.prepare(name, list)
    // Before anything is written: what evolve cannot take must not come into the stream.
    const state = this.#load.replay.apply(loaded.state, draftsOf(stream, version, prepared))
    const result = await append(stream, version, prepared, options)
    const events = prepared.map(({ event, plain }, index) => appendedOf(event, plain, result.events[index]))
    if (result.isRepeated) {
      // Told by ids that were appended before: the state has them already.
      return { ...stateOf(stream, await this.#loadState(stream, { tx: options.tx })), events: events as never }
    }
    if (options.tx === undefined && result.version - loaded.snapshotVersion >= this.#snapshotEvery)
      this.#refresh(stream)
    return { id: stream.id, stream: name, version: result.version, state, events: events as never }
  }

  async #loadState(stream: StreamParts, { toVersion, asOf, tx }: LoadOptions): Promise<LoadedState<State>> {
    const doing = `Loading ${streamName(stream)}`
    const limit = {
      toVersion: wholeNumber(doing, 'toVersion', toVersion, 0),
      asOf: timeText(doing, 'asOf', asOf),
    }
    const isPast = limit.toVersion !== undefined || limit.asOf !== null
    const db = tx === undefined ? this.#context.pool() : toQueryable(tx, 'load', 'invalid_argument')
    const hot = isPast ? undefined : this.#hot.get(stream.id)
    const loaded = await loadState(this.#load, db, stream, { hot, limit })
    // What a transaction sees may yet be rolled back, and what was is not what is.
    if (isPast || tx !== undefined) return loaded
    if (hot !== undefined && loaded.version < hot.version) this.#hot.delete(stream.id)
    return this.#keep(stream, loaded)
  }

  #keep(stream: StreamParts, loaded: LoadedState<State>): LoadedState<State> {
    const isDue = loaded.version - loaded.snapshotVersion >= this.#snapshotEvery
    // Also when it fails: the next one is tried when the next one is due.
    const kept = isDue ? { ...loaded, snapshotVersion: loaded.version } : loaded
    this.#hot.put(stream.id, kept)
    if (isDue) this.#snapshots.save(stream, kept)
    return kept
  }

  /** Stores a snapshot by loading: states come from rows that were read, never from what a command made. */
  #refresh(stream: StreamParts): void {
    const refreshing = this.#loadState(stream, {})
      .then(
        () => undefined,
        (error: unknown) => {
          this.#context.logger.warn(`${streamName(stream)} was not loaded for its snapshot: ${messageOf(error)}`)
        },
      )
      .finally(() => this.#refreshing.delete(refreshing))
    this.#refreshing.add(refreshing)
  }

  #streamOf(id: string): StreamParts {
    if (typeof id !== 'string' || id === '') {
      throw new InvalidInputError(`The id of ${this.type} is ${id === '' ? 'empty' : `of type ${typeof id}`}.`, {
        code: 'invalid_stream',
        hint: `Pass the id as text, for example "17" for the stream ${this.type}-17.`,
      })
    }
    return streamParts({ type: this.type, id })
  }
}

/** Events that are not stored yet as evolve will be given them once they are; the time is this process's. */
function draftsOf(stream: StreamParts, version: number, prepared: readonly PreparedEvent[]): RecordedEvent[] {
  return prepared.map(({ event, plain }, index) => ({
    position: '',
    id: event.id,
    stream: streamName(stream),
    aggregateType: stream.type,
    aggregateId: stream.id,
    version: version + index + 1,
    type: event.type,
    schemaVersion: event.schemaVersion ?? 1,
    // A copy: evolve may put parts of it into a state, and change them.
    payload: structuredClone(plain),
    metadata: { ...event.metadata },
    createdAt: new Date(),
  }))
}

function appendedOf(event: NewEvent, payload: unknown, appended: AppendedEvent | undefined): object {
  return { ...event, payload, ...appended }
}

function stateOf<State>(stream: StreamParts, { state, version }: LoadedState<State>): AggregateState<State> {
  return { id: stream.id, stream: streamName(stream), version, state }
}
