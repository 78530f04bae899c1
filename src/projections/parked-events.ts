import type pg from 'pg'
import { InvalidInputError } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** Parked events listed at once unless told otherwise. */
export const parkedListMax = 100

/** An event that a projection has put aside: it failed, or waits behind one of its stream that did. */
export interface ParkedEvent {
  readonly id: string
  readonly projection: string
  readonly partition: number
  readonly stream: string
  readonly version: number
  readonly position: string
  readonly eventId: string
  readonly type: string
  /** 0: it waits behind another one of its stream. */
  readonly attempts: number
  readonly errorCode: string | null
  readonly error: string | null
  readonly firstAttemptAt: Date | null
  readonly lastAttemptAt: Date | null
  readonly parkedAt: Date
  /** Somebody wants it retried or discarded, and it has not been its turn yet. */
  readonly request: 'retry' | 'discard' | null
}

export interface ParkedFilter {
  /** Only these. Default: all. */
  readonly ids?: readonly string[] | undefined
}

const columns = `
  e.id::text, e.projection, e.partition,
  case when e.aggregate_id = '' then e.aggregate_type else e.aggregate_type || '-' || e.aggregate_id end as stream,
  e.version::float8 as version, e.position::text, e.event_id::text as "eventId", e.type, e.attempts::float8 as attempts,
  e.error_code as "errorCode", e.error, e.first_attempt_at as "firstAttemptAt", e.last_attempt_at as "lastAttemptAt",
  e.parked_at as "parkedAt", e.request`

/** Looks after events that projections have parked. What it is asked the process does that runs the projection, within a second or so. */
export class ParkedEvents {
  readonly #db: () => Queryable
  readonly #place: string
  readonly #projection: string | undefined

  constructor(db: () => Queryable, schema: string, projection?: string) {
    this.#db = db
    this.#place = quoteIdentifier(schema)
    this.#projection = projection
  }

  /** In the order of their positions, `limit` (100) at most. `after`: a position. */
  async list(
    options: { readonly after?: string | undefined; readonly limit?: number | undefined } = {},
  ): Promise<ParkedEvent[]> {
    const { after = '0', limit = parkedListMax } = options
    const { rows } = await this.#db().query<ParkedEvent & pg.QueryResultRow>(
      `select ${columns} from ${this.#place}.parked_event as e
       where ($1::text is null or e.projection = $1) and e.position > $2 order by e.position, e.id limit $3`,
      [this.#projection ?? null, checkedId(after), limit],
    )
    return rows
  }

  /**
   * Has them handled again, and what waits behind them, in the order of their streams. One that waits behind another is handled when
   * it is its turn. Returns how many were marked.
   *
   * @throws InvalidInputError `unknown_parked_event`: an id is of none; nothing was done.
   */
  async retry(filter: ParkedFilter = {}): Promise<number> {
    return this.#request('retry', filter)
  }

  /** Has them passed over for good; what waits behind them goes on. Returns how many were marked. */
  async discard(filter: ParkedFilter = {}): Promise<number> {
    return this.#request('discard', filter)
  }

  async #request(request: 'retry' | 'discard', { ids }: ParkedFilter): Promise<number> {
    const wanted = ids?.map(checkedId)
    // All or none of those that were named.
    const { rows } = await this.#db().query<{ id: string }>(
      `with wanted as (
         select e.id from ${this.#place}.parked_event as e
         where ($1::text is null or e.projection = $1) and ($2::bigint[] is null or e.id = any ($2)) order by e.id for update
       )
       update ${this.#place}.parked_event as e set request = $3 from wanted as w
       where e.id = w.id and ($2::bigint[] is null or (select count(*) from wanted) = (select count(distinct n) from unnest($2) as n))
       returning e.id::text`,
      [this.#projection ?? null, wanted ?? null, request],
    )
    if (wanted !== undefined && rows.length < new Set(wanted).size) {
      throw new InvalidInputError(
        `There is no parked event ${wanted.join(', ')}${wanted.length > 1 ? ' (not each of them)' : ''}.`,
        { code: 'unknown_parked_event', hint: 'See: trunkline projections parked', details: { ids: wanted } },
      )
    }
    return rows.length
  }
}

function checkedId(id: string): string {
  if (/^\d{1,18}$/.test(id)) return id
  throw new InvalidInputError(`"${id}" is no id of a parked event.`, {
    code: 'invalid_argument',
    hint: 'Pass the number that projections parked prints.',
  })
}
