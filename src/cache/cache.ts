import { EventEmitter } from 'node:events'
import { InvalidInputError, type Logger, messageOf, Service, TrunklineError, withTimeout } from '../core/index.ts'
import type {
  FetchedRows,
  FollowStep,
  TableDescription,
  TableFeed,
  TableFollower,
  TableSelection,
  TableSubscription,
} from '../log/index.ts'
import { createRows } from './create-rows.ts'
import type { IndexDefinitions, PreparedChange, Row, RowChange, Rows } from './rows.ts'

/** How long `fresh()` waits unless told otherwise, in milliseconds. */
export const freshTimeoutMs = 10_000

export interface CacheOptions {
  /** SQL over the table's columns: only rows for which it holds are kept. Default: all. */
  readonly where?: string | undefined
  /** Columns to keep; those of the primary key always are. Default: all that are captured. */
  readonly columns?: readonly string[] | undefined
  /** Secondary indexes by name: columns whose values `by` looks rows up with. Each costs about 100 bytes a row. */
  readonly indexes?: IndexDefinitions | undefined
}

/**
 * What a step of the cache did to one row: between what could be read before it and what can be read after it. Several
 * writes to a row that became visible together are one change; a row that came and went between two steps is none.
 */
export interface CacheChange<RowType = Row> {
  readonly operation: 'insert' | 'update' | 'delete'
  readonly old: RowType | undefined
  readonly new: RowType | undefined
}

/** The cache cannot be brought up to date at present; it goes on serving what it has. */
export interface CacheStale {
  /** Milliseconds since the last moment at which it was known to be level. */
  readonly ageMs: number
  readonly cause: Error
}

export interface CacheEvents<RowType = Row> {
  /** One row changed; all changes of a step are visible before the first is told. */
  change: [change: CacheChange<RowType>]
  /** All changes of one step, which holds one or more whole transactions. */
  changes: [changes: readonly CacheChange<RowType>[]]
  stale: [stale: CacheStale]
  /** Level again after `stale`. */
  live: []
}

export interface FreshOptions {
  /**
   * `txid_current()` of a transaction whose writes must be in it, asked for inside that transaction. It says when it has ended, not
   * how: of one that was rolled back there is nothing to wait for, and `fresh` resolves.
   */
  readonly xid?: string | number | bigint | undefined
  /** Default 10,000. */
  readonly timeoutMs?: number | undefined
}

/**
 * A table, or a part of one, in memory and always equal to the table: every read is synchronous and costs no I/O. Rows are
 * decoded exactly as a SELECT through pg gives them, and frozen. A transaction becomes visible as a whole, between two
 * reads; caches of one process step ahead together.
 */
export class Cache<RowType = Row> extends Service implements Iterable<RowType> {
  readonly #selection: TableSelection
  readonly #indexes: IndexDefinitions
  readonly #feed: TableFeed
  readonly #logger: Logger
  readonly #emitter = new EventEmitter<CacheEvents<RowType>>()
  #rows: Rows | undefined
  #copy: Rows | undefined
  #prepared: PreparedChange | undefined
  #changes: RowChange[] = []
  #wasStale = false
  #staleCause: Error | undefined
  #lookedAt = 0
  #subscription: TableSubscription | undefined

  constructor(feed: TableFeed, table: string, options: CacheOptions, logger: Logger) {
    super()
    this.#feed = feed
    this.#selection = { table, where: options.where, columns: options.columns }
    this.#indexes = options.indexes ?? {}
    this.#logger = logger
    this.#emitter.setMaxListeners(0)
  }

  /** The table as it was named. */
  get table(): string {
    return this.#selection.table
  }

  /** Rows in it. */
  get size(): number {
    return this.#loaded().size
  }

  /** `live`: level with the table as of `ageMs` ago; `stale`: cannot be brought up to date at present. */
  get status(): 'live' | 'stale' | 'stopped' {
    if (this.state !== 'running') return 'stopped'
    return this.#wasStale ? 'stale' : 'live'
  }

  /** Milliseconds since it was last known to be equal to the table: at most the poll interval while all is well. */
  get ageMs(): number {
    return performance.now() - this.#lookedAt
  }

  /** Why it is stale. */
  get staleCause(): Error | undefined {
    return this.#staleCause
  }

  /**
   * The row under a primary key: the bare value of a key of one column, or an object with its columns. int8 and numeric keys
   * are texts, as the driver gives them; numbers are taken, too.
   */
  get(key: unknown): RowType | undefined {
    return this.#loaded().get(key) as RowType | undefined
  }

  has(key: unknown): boolean {
    return this.#loaded().get(key) !== undefined
  }

  /** The rows whose columns of the index hold the values, in no order; the same array until one of them changes. */
  by(index: string, ...values: readonly unknown[]): readonly RowType[] {
    return this.#loaded().by(index, values) as readonly RowType[]
  }

  values(): Iterable<RowType> {
    return this.#loaded().values() as Iterable<RowType>
  }

  [Symbol.iterator](): Iterator<RowType> {
    return this.values()[Symbol.iterator]()
  }

  on<Name extends keyof CacheEvents>(name: Name, listener: (...values: CacheEvents<RowType>[Name]) => void): this {
    this.#emitter.on(name, listener as never)
    return this
  }

  once<Name extends keyof CacheEvents>(name: Name, listener: (...values: CacheEvents<RowType>[Name]) => void): this {
    this.#emitter.once(name, listener as never)
    return this
  }

  off<Name extends keyof CacheEvents>(name: Name, listener: (...values: CacheEvents<RowType>[Name]) => void): this {
    this.#emitter.off(name, listener as never)
    return this
  }

  /** Resolves when all that had committed before the call is in it (and what the transaction `xid` did). */
  async fresh(options: FreshOptions = {}): Promise<void> {
    const subscription = this.#subscription
    this.#loaded()
    if (subscription === undefined) return
    const timeoutMs = options.timeoutMs ?? freshTimeoutMs
    const xid = options.xid === undefined ? undefined : toXid(options.xid)
    await withTimeout(
      this.#feed.fresh(subscription, xid),
      timeoutMs,
      () =>
        new TrunklineError(`The cache of ${this.table} did not become fresh within ${timeoutMs} ms.`, {
          code: 'not_fresh',
          retryable: true,
          hint:
            this.#staleCause !== undefined
              ? `It is stale, and goes on serving what it has: ${messageOf(this.#staleCause)}`
              : xid === undefined
                ? 'The server is out of reach or slow; the cache goes on serving what it has.'
                : `Transaction ${xid} is still open, or its id was taken outside of it or on another server.`,
          cause: this.#staleCause,
        }),
    )
  }

  protected async onStart(): Promise<void> {
    const start = performance.now()
    this.#feed.users.add(this)
    this.#subscription = await this.#feed.follow(this.#follower())
    this.#lookedAt = Math.max(this.#lookedAt, start)
    if (this.#subscription.table?.isRestricted === true)
      this.#logger.warn(
        `${this.table} has row level security: the cache holds the rows that its role may see, and learns of changes of rows only.`,
      )
  }

  protected async onStop(): Promise<void> {
    this.#feed.users.delete(this)
    if (this.#subscription !== undefined) this.#feed.unfollow(this.#subscription)
    this.#subscription = undefined
    this.#rows = undefined
    this.#copy = undefined
    await Promise.resolve()
  }

  #loaded(): Rows {
    if (this.#rows !== undefined) return this.#rows
    throw new InvalidInputError(`The cache of ${this.table} was stopped.`, {
      code: 'not_started',
      hint: 'Start it again: await cache.start().',
    })
  }

  #follower(): TableFollower {
    const size = (): number => (this.#copy ?? this.#rows)?.size ?? 0
    return {
      selection: this.#selection,
      get size() {
        return size()
      },
      beginCopy: (table: TableDescription) => {
        this.#copy = createRows(table, this.#indexes)
      },
      stageCopy: (page: FetchedRows) => this.#copy?.load(page),
      stageChanges: (changes: FetchedRows) => {
        this.#prepared = changes.rows.length === 0 ? undefined : (this.#copy ?? this.#rows)?.prepare(changes)
      },
      commit: (step: FollowStep) => this.#commit(step),
      announce: () => this.#announce(),
      stale: (cause: Error) => {
        this.#wasStale = true
        this.#staleCause = cause
        this.#emit('stale', { ageMs: Math.round(this.ageMs), cause })
      },
    }
  }

  #commit({ isFresh, lookedAt }: FollowStep): void {
    const applied = this.#prepared?.() ?? []
    this.#prepared = undefined
    if (isFresh && this.#copy !== undefined) {
      // Comparing costs as much as copying: only for somebody who listens.
      const isHeard = this.#emitter.listenerCount('change') + this.#emitter.listenerCount('changes') > 0
      this.#changes = this.#rows !== undefined && isHeard ? this.#rows.difference(this.#copy) : []
      this.#rows = this.#copy
      this.#copy = undefined
    } else {
      this.#changes = applied
    }
    this.#lookedAt = lookedAt
  }

  #announce(): void {
    const changes = this.#changes
    this.#changes = []
    if (this.#wasStale) {
      this.#wasStale = false
      this.#staleCause = undefined
      this.#emit('live')
    }
    if (changes.length === 0) return
    const told = changes.map(toChange) as CacheChange<RowType>[]
    if (this.#emitter.listenerCount('change') > 0) for (const change of told) this.#emit('change', change)
    this.#emit('changes', told)
  }

  /** A listener that throws must not stop the others, nor the feed. */
  #emit<Name extends keyof CacheEvents>(name: Name, ...values: CacheEvents<RowType>[Name]): void {
    for (const listener of this.#emitter.rawListeners(name)) {
      try {
        ;(listener as (...all: unknown[]) => void).apply(this.#emitter, values)
      } catch (error) {
        this.#logger.error(`A listener of "${name}" of the cache of ${this.table} threw: ${messageOf(error)}`)
      }
    }
  }
}

function toChange(change: RowChange): CacheChange {
  const operation = change.old === undefined ? 'insert' : change.new === undefined ? 'delete' : 'update'
  return { operation, old: change.old, new: change.new }
}

function toXid(xid: string | number | bigint): bigint {
  try {
    return BigInt(xid)
  } catch {
    throw new InvalidInputError(`"${xid}" is no transaction id.`, {
      code: 'invalid_argument',
      hint: 'Pass what select txid_current() gave inside the writing transaction.',
    })
  }
}
