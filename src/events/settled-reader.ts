import { TrunklineError } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { eventError } from './errors.ts'
import { eventsOf, type RecordedEvent } from './event.ts'
import { OpenWriters } from './open-writers.ts'
import { pageBytesMax } from './read-stream.ts'

/** Events that a page looks at where only some types or categories are wanted. */
const filteredRows = 20_000

export interface EventFilter {
  /** Only events of these types. Default: all. */
  readonly types?: readonly string[] | undefined
  /** Only events of aggregates of these types. Default: all. */
  readonly categories?: readonly string[] | undefined
}

export interface SettledPage {
  readonly events: readonly RecordedEvent[]
  /** All up to here has been given: read on after it. At least `after`. */
  readonly upTo: bigint
  /** Every position that had been drawn is settled and given. Not so while a transaction that writes events is open. */
  readonly isLevel: boolean
  /** The last position that had been drawn when it was read. */
  readonly lastPosition: bigint
  /** There is more to be had at once. Otherwise wait until somebody commits. */
  readonly hasMore: boolean
}

interface PageRow extends Record<string, unknown> {
  readonly last_position: string
  /** Null: the server did not look. */
  readonly writers: string[] | null
  readonly events: string | null
  readonly up_to: string
  readonly is_level: boolean
}

/**
 * Reads all events in their global order, each once, whatever was committed when: the order is that of positions, and no event
 * is given while one before it may still appear (docs/events.md, "The order of all events"). It is the same for every reader and
 * every replay. Only an open transaction that has written events itself holds it back.
 *
 * It keeps no state in the database. One call at a time.
 */
export class SettledReader {
  readonly #db: () => Queryable
  readonly #schema: string
  readonly #filter: EventFilter
  readonly #writers = new OpenWriters()
  #isBusy = false

  constructor(db: () => Queryable, schema: string, filter: EventFilter = {}) {
    this.#db = db
    this.#schema = schema
    this.#filter = filter
  }

  /** The next events after a position, at most `limit`. @throws TrunklineError `unsettled_order` on a standby. */
  async next(after: bigint, limit: number): Promise<SettledPage> {
    if (this.#isBusy) throw new TrunklineError('The reader of events is asked while it reads.', { code: 'reader_busy' })
    this.#isBusy = true
    try {
      const page = await this.#fetch(after, limit)
      // Held back by a writer that was gone when the page was asked for: what it had written can be read now.
      return !page.hasMore && page.upTo === after && this.#writers.settled > after
        ? await this.#fetch(after, limit)
        : page
    } catch (error) {
      throw eventError(error, 'Reading events', this.#schema)
    } finally {
      this.#isBusy = false
    }
  }

  async #fetch(after: bigint, limit: number): Promise<SettledPage> {
    const { types, categories } = this.#filter
    const isFiltered = types !== undefined || categories !== undefined
    const { rows } = await this.#db().query<PageRow>(
      `select p.last_position::text, p.writers, p.events, p.up_to::text, p.is_level from ${quoteIdentifier(this.#schema)}.event_page(
        $1::bigint, $2::bigint, $3::text[], $4::text[], $5::integer, $6::bigint, $7::integer) as p`,
      [
        after.toString(),
        this.#writers.settled.toString(),
        types ?? null,
        categories ?? null,
        isFiltered ? Math.max(limit, filteredRows) : limit,
        pageBytesMax,
        limit,
      ],
    )
    const row = rows[0] as PageRow
    if (row.writers !== null) this.#writers.add(BigInt(row.last_position), row.writers)
    const upTo = BigInt(row.up_to)
    const hasMore = !row.is_level && (upTo > after || this.#writers.settled > upTo)
    const lastPosition = BigInt(row.last_position)
    let events: readonly RecordedEvent[] | undefined
    return {
      // Made when they are asked for: the next page can be on its way by then.
      get events() {
        return (events ??= eventsOf(row.events))
      },
      upTo,
      isLevel: row.is_level,
      hasMore,
      lastPosition,
    }
  }
}
