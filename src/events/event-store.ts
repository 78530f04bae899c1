import type { Pool } from 'pg'
import { type Connection, toQueryable } from '../adapters/index.ts'
import { InvalidInputError, TrunklineError } from '../core/index.ts'
import { inTransaction, type Queryable, retryWhileLocked } from '../postgres/index.ts'
import { AppendQueue } from './append-queue.ts'
import {
  type AppendContext,
  appendEventsMax,
  checkExpected,
  prepareAppend,
  type PreparedAppend,
  sendAppend,
} from './append.ts'
import { appendError, eventError } from './errors.ts'
import { EventReading, type FetchPage } from './event-reading.ts'
import { EventSignal, type EventSignalOptions } from './event-signal.ts'
import type { AppendResult, ExpectedVersion, NewEvent, RecordedEvent } from './event.ts'
import type { EventExtension } from './extension.ts'
import { PreparedQueries } from './prepared-queries.ts'
import { publishEvents } from './publish.ts'
import { type EventQuery, queryEvents, readAll, type ReadAllOptions } from './read-all.ts'
import { readStream, type ReadStreamOptions } from './read-stream.ts'
import { type EventFilter, SettledReader } from './settled-reader.ts'
import { type Stream, streamName, streamParts } from './stream.ts'
import { listStreams, type StreamsOptions, type StreamSummary } from './streams.ts'
import { TransactionTurns } from './transaction-turns.ts'

export interface AppendOptions extends AppendContext {
  /** The caller's transaction: a pg client, or a slonik connection. Default: a transaction of its own. */
  readonly tx?: Connection | undefined
}

export interface EventStoreContext extends Omit<EventSignalOptions, 'db'> {
  readonly pool: () => Pool
}

/**
 * The event store: streams of events, appended with an expected version and never changed. As `trunkline.events`; it needs no
 * `start`.
 */
export class EventStore {
  readonly schema: string
  /** Tells when there are new events: for those who follow them. */
  readonly signal: EventSignal
  readonly #pool: () => Pool
  readonly #prepared: PreparedQueries
  readonly #extensions: EventExtension[] = []
  readonly #queue: AppendQueue
  readonly #turns = new TransactionTurns()

  constructor({ pool, ...options }: EventStoreContext) {
    this.schema = options.schema
    this.#pool = pool
    this.#prepared = new PreparedQueries(pool)
    this.#queue = new AppendQueue(this.#prepared, options.schema)
    this.signal = new EventSignal({ ...options, db: pool })
  }

  /** Adds what looks at events on their way in and out. Extensions run in the order in which they were added, on reading too. */
  use(extension: EventExtension): void {
    this.#extensions.push(extension)
  }

  /**
   * Appends events to the end of a stream: all of them or none. With `tx` in the caller's transaction, which may append to several
   * streams; the events exist if and only if that commits. Events whose ids were appended before, all of them with the same content
   * and order, are not written again, and the first result is given.
   *
   * @param expectedVersion the version that the stream must have; two writers who expect the same one: one of them wins.
   * @throws VersionConflictError (retryable). InvalidInputError `invalid_stream`, `invalid_expected_version`, `invalid_event`,
   *   `event_id_taken`. TrunklineError `deadlock` (retryable). After an error of the server the caller's transaction has failed.
   */
  async append(
    stream: Stream,
    expectedVersion: ExpectedVersion,
    events: NewEvent | readonly NewEvent[],
    options: AppendOptions = {},
  ): Promise<AppendResult> {
    const parts = streamParts(stream)
    const name = streamName(parts)
    const expected = checkExpected(name, expectedVersion)
    const list = Array.isArray(events) ? (events as readonly NewEvent[]) : [events as NewEvent]
    if (list.length === 0 || list.length > appendEventsMax) {
      throw new InvalidInputError(`Appending to ${name}: there are ${list.length} events.`, {
        code: 'invalid_event',
        hint: `Pass from 1 to ${appendEventsMax} events; several appends may share a transaction.`,
      })
    }
    const tx = options.tx === undefined ? undefined : toQueryable(options.tx, 'append', 'invalid_argument')
    const prepare = async (db: Queryable): Promise<PreparedAppend> => {
      let written: readonly NewEvent[] = list
      for (const extension of this.#extensions) {
        if (extension.beforeWrite !== undefined) written = await extension.beforeWrite(written, name, db)
      }
      return prepareAppend(parts, expected, written, options)
    }
    const write = async (db: Queryable): Promise<AppendResult> => this.#send(db, await prepare(db))
    const needsTransaction = this.#extensions.some(
      (extension) => extension.inTransaction !== undefined && extension.isWanted?.(name, list) !== false,
    )
    if (tx !== undefined) return needsTransaction ? this.#turns.run(options.tx as object, () => write(tx)) : write(tx)
    if (needsTransaction) return againAfterDeadlock(() => this.#inTransaction(name, write))
    return againAfterDeadlock(async () => {
      const append = await prepare(this.#pool())
      return this.#queue.send(append).catch((error: unknown) => {
        throw appendError(error, name, expected, this.schema)
      })
    })
  }

  /**
   * Reads a stream: all of it, or by versions, or as it was at a time. A stream without events gives none.
   *
   * @throws InvalidInputError `invalid_stream`, `invalid_option`.
   */
  read(stream: Stream, options: ReadStreamOptions = {}): EventReading {
    const parts = streamParts(stream)
    const tx = options.tx === undefined ? undefined : toQueryable(options.tx, 'read', 'invalid_argument')
    return this.#reading(readStream(this.schema, parts, options), `Reading ${streamName(parts)}`, tx)
  }

  /**
   * Reads all events in their global order, up to now, and as far as it is settled: it ends at the events of a transaction that is
   * still open. The same events come in the same order to everybody. On the primary only.
   *
   * @throws InvalidInputError `invalid_option`. TrunklineError `unsettled_order` on a standby.
   */
  readAll(options: ReadAllOptions = {}): EventReading {
    return this.#reading(readAll(this.schema, options), 'Reading all events')
  }

  /**
   * Asks for events by aggregate, type, time and metadata: all that are committed, in the order of their positions.
   *
   * @throws InvalidInputError `invalid_stream`, `invalid_option`.
   */
  query(query: EventQuery): EventReading {
    return this.#reading(queryEvents(this.schema, query), 'Querying events')
  }

  /** Lists streams in the order of their names. */
  async *streams(options: StreamsOptions = {}): AsyncIterableIterator<StreamSummary> {
    try {
      yield* listStreams(this.#pool(), this.schema, options)
    } catch (error) {
      throw eventError(error, 'Listing streams', this.schema)
    }
  }

  /**
   * Has the events of these aggregate types, and of no others, written to the log too, from now on, so that relays deliver them:
   * the type is the topic, the aggregate's id the key. Idempotent; with an empty list nothing is published any more. For the owner
   * of the schema, at deployment: appends wait for it for a moment.
   */
  async publish(categories: readonly string[]): Promise<void> {
    await retryWhileLocked(() => publishEvents(this.#pool(), this.schema, categories)).catch((error: unknown) => {
      throw eventError(error, 'Publishing events', this.schema)
    })
  }

  /** Follows all events in their global order: for whoever keeps a checkpoint. Events come as they are stored, then through `open`. */
  settledReader(filter: EventFilter = {}): SettledReader {
    return new SettledReader(() => this.#prepared, this.schema, filter)
  }

  /** What extensions make of events that were read. */
  async open(events: readonly RecordedEvent[], tx?: Queryable): Promise<readonly RecordedEvent[]> {
    let opened = events
    for (const extension of this.#extensions) {
      if (extension.afterRead !== undefined) opened = await extension.afterRead(opened, tx)
    }
    return opened
  }

  #reading(open: (db: Queryable) => FetchPage, doing: string, tx?: Queryable): EventReading {
    return new EventReading(() => {
      const fetch = open(tx ?? this.#prepared)
      return async (rowsMax) => {
        const page = await fetch(rowsMax).catch((error: unknown) => {
          throw eventError(error, doing, this.schema)
        })
        return { read: async () => this.open(await page.read(), tx), isLast: page.isLast }
      }
    })
  }

  async #send(db: Queryable, append: PreparedAppend): Promise<AppendResult> {
    const { result, recorded } = await sendAppend(db === this.#pool() ? this.#prepared : db, this.schema, append).catch(
      (error: unknown) => {
        throw appendError(error, append.name, append.expected, this.schema)
      },
    )
    const hooks = this.#extensions.filter((extension) => extension.inTransaction !== undefined)
    if (hooks.length === 0 || result.isRepeated) return result
    const events = recorded()
    for (const hook of hooks) await hook.inTransaction?.(db, events)
    return result
  }

  async #inTransaction(name: string, run: (db: Queryable) => Promise<AppendResult>): Promise<AppendResult> {
    try {
      return await inTransaction(this.#pool(), run)
    } catch (error) {
      throw eventError(error, `Appending to ${name}`, this.schema)
    }
  }
}

/** Attempts of an append in a transaction of its own, which a deadlock of others can hit while it queues for its stream. */
const attemptsMax = 3

async function againAfterDeadlock(run: () => Promise<AppendResult>): Promise<AppendResult> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await run()
    } catch (error) {
      if (attempt === attemptsMax || !(error instanceof TrunklineError) || error.code !== 'deadlock') throw error
    }
  }
}
