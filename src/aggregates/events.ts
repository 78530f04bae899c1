import type { Pool } from 'pg'
import { type Connection, toQueryable } from '../adapters/index.ts'
import { type Logger } from '../core/index.ts'
import {
  eventError,
  EventStore,
  type EventStoreContext,
  type NewEvent,
  type RecordedEvent,
  streamParts,
} from '../events/index.ts'
import { inTransaction, type Queryable } from '../postgres/index.ts'
import {
  type AggregateOptions,
  checkAggregateOptions,
  checkCategory,
  type EventsDeclaration,
} from './aggregate-options.ts'
import { Aggregate } from './aggregate.ts'
import { EventCatalog, type CatalogOptions, type PreparedEvent, refuseBoxes } from './event-catalog.ts'
import { MasterKeys } from './master-keys.ts'
import { openEvents, sealEvents } from './personal-data.ts'
import { checkSubject, type ForgetResult, SubjectKeys } from './subject-keys.ts'
import type { AnyUpcaster, UpcastEvent } from './upcaster.ts'

/** Options of the event store. */
export interface EventsOptions {
  /**
   * Keys of the application, of 32 bytes, that the keys of subjects are wrapped with: new ones with the first, any opens old ones.
   * Default none: whoever can read the table `subject_key` can read personal data.
   */
  readonly masterKeys?: readonly Uint8Array[] | undefined
}

interface EventsContext extends EventsOptions, EventStoreContext {}

/** The event store with aggregates, upcasters and personal data. As `trunkline.events`. */
export class Events extends EventStore {
  readonly #pool: () => Pool
  readonly #logger: Logger
  readonly #keys: SubjectKeys
  /** By aggregate type. */
  readonly #catalogs = new Map<string, EventCatalog>()
  readonly #aggregates = new Set<{ forget(subject: string): void; settled(): Promise<void> }>()
  /** Events on their way from `handle` to the store, which were looked at already. */
  readonly #prepared = new WeakMap<object, PreparedEvent>()

  constructor({ masterKeys, ...context }: EventsContext) {
    super(context)
    this.#pool = context.pool
    this.#logger = context.logger
    this.#keys = new SubjectKeys(context.schema, new MasterKeys(masterKeys))
    this.use({
      beforeWrite: (events, stream, tx) => this.#beforeWrite(events, stream, tx),
      afterRead: (events, tx) => this.#afterRead(events, tx ?? this.#pool()),
    })
  }

  /**
   * The aggregates of a type: their states and commands. What it says of their events holds for this store, as by `declare`.
   *
   * @throws InvalidInputError `invalid_option`, `invalid_upcaster`, `invalid_event_definition`.
   */
  aggregate<State, Event extends UpcastEvent, const Upcasters extends readonly AnyUpcaster[] = readonly AnyUpcaster[]>(
    options: AggregateOptions<State, Event, Upcasters>,
  ): Aggregate<State, Event> {
    checkAggregateOptions(options)
    const catalog = new EventCatalog(options.type, options)
    const aggregate = new Aggregate<State, Event>(
      {
        schema: this.schema,
        pool: this.#pool,
        logger: this.#logger,
        keys: this.#keys,
        catalog,
        append: (stream, version, prepared, appendOptions) => {
          for (const one of prepared) this.#prepared.set(one.event, one)
          return this.append(
            stream,
            version,
            prepared.map(({ event }) => event),
            appendOptions,
          )
        },
      },
      options,
    )
    this.#hold(options, catalog)
    this.#aggregates.add(aggregate)
    return aggregate
  }

  /**
   * Declares the events of an aggregate type, for a process that has no aggregate of it: what it appends is checked and sealed, what
   * it reads is upcast. The newest declaration of a type holds.
   *
   * @throws InvalidInputError `invalid_option`, `invalid_upcaster`, `invalid_event_definition`.
   */
  declare<Event extends UpcastEvent, const Upcasters extends readonly AnyUpcaster[] = readonly AnyUpcaster[]>(
    declaration: EventsDeclaration<Event, Upcasters>,
  ): void {
    checkCategory(declaration.type)
    this.#hold(declaration, new EventCatalog(declaration.type, declaration))
  }

  /**
   * Forgets a person for good: deletes the key of the subject, without which its personal data in events cannot be read by anybody
   * any more, and the aggregate snapshots that hold some of it. In its place there is `forgotten` from then on, in every process.
   * Projections and other copies of what was read are the caller's: delete them in the same transaction.
   *
   * @param options `tx`: the caller's transaction, of isolation level READ COMMITTED. Default: one of its own.
   * @throws InvalidInputError `invalid_subject`, `invalid_argument` (the isolation level).
   */
  async forget(subject: string, options: { readonly tx?: Connection | undefined } = {}): Promise<ForgetResult> {
    checkSubject(subject, 'forget')
    const result =
      options.tx === undefined
        ? await this.#forgetAlone(subject)
        : await this.#keys.forget(toQueryable(options.tx, 'forget', 'invalid_argument'), subject)
    for (const aggregate of this.#aggregates) aggregate.forget(subject)
    return result
  }

  /** Resolves when no snapshot is being stored. */
  async settled(): Promise<void> {
    await Promise.all([...this.#aggregates].map((aggregate) => aggregate.settled()))
  }

  /** From now on it holds for all events of its type. */
  #hold({ type, events, upcasters }: CatalogOptions & { readonly type: string }, catalog: EventCatalog): void {
    const saysNothing = events === undefined && upcasters === undefined
    if (!saysNothing || !this.#catalogs.has(type)) this.#catalogs.set(type, catalog)
  }

  async #forgetAlone(subject: string): Promise<ForgetResult> {
    try {
      return await inTransaction(this.#pool(), (client) => this.#keys.forget(client, subject))
    } catch (error) {
      throw eventError(error, 'Forgetting a subject', this.schema)
    }
  }

  async #beforeWrite(events: readonly NewEvent[], stream: string, tx: Queryable): Promise<readonly NewEvent[]> {
    const catalog = this.#catalogs.get(streamParts(stream).type)
    const known = events.map((event) => this.#prepared.get(event as object))
    if (known.every((one) => one !== undefined)) return sealEvents(this.#keys, tx, stream, known)
    if (catalog !== undefined) return sealEvents(this.#keys, tx, stream, await catalog.prepare(stream, events))
    for (const event of events)
      refuseBoxes(stream, (event as NewEvent | null)?.type ?? '', (event as NewEvent | null)?.payload)
    return events
  }

  async #afterRead(events: readonly RecordedEvent[], db: Queryable): Promise<readonly RecordedEvent[]> {
    const opened = await openEvents(this.#keys, db, events)
    if (this.#catalogs.size === 0) return opened.events
    const result: RecordedEvent[] = []
    for (const event of opened.events) {
      const catalog = this.#catalogs.get(event.aggregateType)
      const made = catalog?.upcast([event]) ?? [event]
      if (catalog?.isReadChecked === true) await catalog.checkPayloads(made, opened.forgotten)
      for (const one of made) result.push(one)
    }
    return result
  }
}
