import type { ClientConfig } from 'pg'
import { type Logger, messageOf, Pause, pause, Service } from '../core/index.ts'
import { ReaderRest } from '../log/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

export interface EventSignalOptions {
  readonly schema: string
  readonly db: () => Queryable
  /** A direct connection for LISTEN; false: poll only. */
  readonly listenConfig: () => ClientConfig | false
  /** Milliseconds between looks where nobody wakes us. */
  readonly pollIntervalMs: number
  /** Milliseconds of rest after a look that found something. */
  readonly minIntervalMs: number
  readonly logger: Logger
}

/** One who waits for new events: made by `EventSignal.subscribe`. */
export interface EventWaiter {
  /** Resolves when it makes sense to look, at once if that was so since the last call; at latest after the poll interval. */
  wait(): Promise<void>
  /** Ends the wait under way. */
  wake(): void
  /** Ends the subscription, and the wait. */
  end(): void
}

/**
 * Tells all who read events in one process when to look: woken by a commit where LISTEN works, else by polling. One connection
 * listens for all; writers notify only while nobody is awake (docs/log.md, "Waking"). It runs while somebody subscribes.
 */
export class EventSignal extends Service {
  readonly #options: EventSignalOptions
  readonly #waiters = new Set<Pause>()
  #rest: ReaderRest | undefined
  #running: Promise<void> | undefined

  constructor(options: EventSignalOptions) {
    super()
    this.#options = options
  }

  /** How new events are learnt of. */
  get mode(): 'listen' | 'poll' {
    return this.#rest?.mode ?? 'poll'
  }

  /** True while nothing but a notification or the poll interval would end the wait: for tests. */
  get isAsleep(): boolean {
    return this.#rest?.isAsleep === true
  }

  /** Waits for new events from now on. */
  subscribe(): EventWaiter {
    const waiter = new Pause()
    this.#waiters.add(waiter)
    void this.start().catch((error: unknown) => {
      this.#options.logger.warn(`New events are found by polling only: ${messageOf(error)}`)
    })
    return {
      wait: async () => {
        await waiter.wait(this.#options.pollIntervalMs)
      },
      wake: () => waiter.wake(),
      end: () => {
        this.#waiters.delete(waiter)
        waiter.wake()
        if (this.#waiters.size === 0) void this.stop()
      },
    }
  }

  protected async onStart(): Promise<void> {
    const { schema, db, listenConfig, pollIntervalMs, minIntervalMs, logger } = this.#options
    const { rows } = await db().query<{ id: string }>(
      `select c.oid::text as id from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
       where n.nspname = $1 and c.relname = 'event'`,
      [schema],
    )
    this.#rest = new ReaderRest({
      schema,
      queryable: { query: async (text, values) => db().query(text, values) },
      config: listenConfig(),
      topicIds: rows.map(({ id }) => id),
      writers: 'event_writers',
      pollIntervalMs,
      minIntervalMs,
      logger,
    })
    await this.#rest.start()
    this.#running = this.#run(this.#rest)
  }

  protected async onStop(): Promise<void> {
    const rest = this.#rest
    this.#rest = undefined
    rest?.wake()
    await this.#running
    await rest?.stop()
  }

  async #run(rest: ReaderRest): Promise<void> {
    let last: string | undefined
    let hasChanged = false
    while (this.#rest === rest) {
      await rest.after(hasChanged)
      try {
        const now = await this.#lastPosition()
        hasChanged = now !== last
        last = now
      } catch (error) {
        this.#options.logger.debug(`Looking for new events failed: ${messageOf(error)}`)
        await pause(this.#options.minIntervalMs)
      }
      for (const waiter of this.#waiters) waiter.wake()
    }
  }

  async #lastPosition(): Promise<string | undefined> {
    const { rows } = await this.#options
      .db()
      .query<{ last: string }>(
        `select s.last_value::text as last from ${quoteIdentifier(this.#options.schema)}.event_position_seq as s`,
      )
    return rows[0]?.last
  }
}
