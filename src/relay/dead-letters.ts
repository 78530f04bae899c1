import { InvalidInputError } from '../core/index.ts'
import { restoredChange } from '../log/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** Dead letters listed at once unless told otherwise. */
export const deadLettersListMax = 100
/** Dead letters redriven or discarded in one statement, at most, where they are not named. */
const portionMax = 5_000

/** A delivery that is not attempted any more. */
export interface DeadLetter {
  readonly id: string
  readonly relay: string
  readonly topic: string
  readonly key: string | null
  readonly messageId: string
  /** Its key waits for it to be redriven or discarded. */
  readonly holds: boolean
  readonly attempts: number
  readonly errorCode: string | null
  readonly error: string | null
  readonly firstAttemptAt: Date | null
  readonly lastAttemptAt: Date | null
  readonly deadAt: Date
}

/** A dead letter with the change that it was made from, as `tail --json` prints it. */
export interface DeadLetterWithChange extends DeadLetter {
  /** JSON text: numbers keep every digit. */
  readonly change: string
}

export interface DeadLetterFilter {
  /** Of this relay. Default: of all. */
  readonly relay?: string | undefined
  /** Only these. Default: all. */
  readonly ids?: readonly string[] | undefined
}

const columns = `
  d.id::text, d.relay, d.topic, d.key, d.message_id::text as "messageId", d.holds, d.attempts::integer as attempts,
  d.error_code as "errorCode", d.error_message as error, d.first_attempt_at as "firstAttemptAt",
  d.last_attempt_at as "lastAttemptAt", d.dead_at as "deadAt"`

/** Looks after deliveries that relays gave up. Needs no relay to run. */
export class DeadLetters {
  readonly #db: Queryable
  readonly #place: string

  constructor(db: Queryable, schema: string) {
    this.#db = db
    this.#place = quoteIdentifier(schema)
  }

  /** The oldest first, `limit` (100) at most; `after`: an id. */
  async list(
    options: { relay?: string | undefined; after?: string | undefined; limit?: number | undefined } = {},
  ): Promise<DeadLetter[]> {
    const { relay, after = '0', limit = deadLettersListMax } = options
    const { rows } = await this.#db.query<DeadLetter & Record<string, unknown>>(
      `select ${columns} from ${this.#place}.failed_delivery as d
       where d.state = 'dead' and ($1::text is null or d.relay = $1) and d.id > $2 order by d.id limit $3`,
      [relay ?? null, checkedId(after), limit],
    )
    return rows
  }

  /** @throws InvalidInputError `unknown_dead_letter`. */
  async show(id: string): Promise<DeadLetterWithChange> {
    const { rows } = await this.#db.query<DeadLetterWithChange & Record<string, unknown>>(
      `select ${columns}, d.change::text from ${this.#place}.failed_delivery as d where d.state = 'dead' and d.id = $1`,
      [checkedId(id)],
    )
    if (rows[0] === undefined) throw unknown([id])
    return { ...rows[0], change: JSON.stringify(restoredChange(rows[0].change)) }
  }

  /**
   * Has them attempted again, counted anew, within a second or so where the relay runs; of many it takes up some hundreds at a time.
   * One of a key that went on meanwhile comes late: after what was delivered without it. Returns how many.
   *
   * @param signal where none are named: no further portion of 5,000 is begun.
   * @throws InvalidInputError `unknown_dead_letter`: an id is of none; nothing was done.
   */
  async redrive(filter: DeadLetterFilter, signal?: AbortSignal): Promise<number> {
    return this.#change(
      filter,
      `changed as (
         update ${this.#place}.failed_delivery as d
         set state = 'redrive', attempts = 0, retry_at = clock_timestamp(), dead_at = null
         where d.id in (select c.id from chosen as c) returning d.id
       )`,
      signal,
    )
  }

  /**
   * Forgets them for good; keys that they held go on. One that its relay's checkpoint has not passed yet is kept as done until
   * then, so that starting over from there does not attempt it again. Returns how many.
   *
   * @param signal where none are named: no further portion of 5,000 is begun.
   */
  async discard(filter: DeadLetterFilter, signal?: AbortSignal): Promise<number> {
    return this.#change(
      filter,
      `gone as (
         delete from ${this.#place}.failed_delivery as d using ${this.#place}.relay_place as p
         where d.id in (select c.id from chosen as c) and p.relay = d.relay and p.slot = d.slot
           and ${this.#place}.is_covered(p.position, d.log_id, d.xid)
         returning d.id
       ), kept as (
         update ${this.#place}.failed_delivery as d set state = 'done', holds = false
         where d.id in (select c.id from chosen as c) and not exists (
           select from ${this.#place}.relay_place as p
           where p.relay = d.relay and p.slot = d.slot and ${this.#place}.is_covered(p.position, d.log_id, d.xid)
         )
         returning d.id
       ), changed as (
         select g.id from gone as g union all select k.id from kept as k
       )`,
      signal,
    )
  }

  /** @param changes common table expressions; the last one is `changed` and gives the ids. */
  async #change({ relay, ids }: DeadLetterFilter, changes: string, signal?: AbortSignal): Promise<number> {
    if (ids !== undefined) return this.#changeNamed(relay, [...new Set(ids.map(checkedId))], changes)
    const isWanted = (): boolean => signal?.aborted !== true
    // Portions, so that nobody waits long for their locks. Not beyond what is there now: what is redriven may be a dead letter again.
    let all = 0
    for (let after: string | null = '0'; after !== null && isWanted();) {
      const portion = await this.#changePortion(relay, after, changes)
      all += portion.count
      after = portion.last
    }
    return all
  }

  /** All or none. */
  async #changeNamed(relay: string | undefined, ids: readonly string[], changes: string): Promise<number> {
    const { rows } = await this.#db.query<{ count: number }>(
      `with wanted as (
         select d.id from ${this.#place}.failed_delivery as d
         where d.state = 'dead' and ($1::text is null or d.relay = $1) and d.id = any ($2::bigint[])
         for update
       ), chosen as (
         select w.id from wanted as w where (select count(*) from wanted) = cardinality($2)
       ), ${changes}
       select count(*)::integer as count from changed`,
      [relay ?? null, ids],
    )
    const count = rows[0]?.count ?? 0
    if (count < ids.length) throw unknown(ids)
    return count
  }

  /** The next ones behind an id. `last`: the last one of them; null: there are no more. */
  async #changePortion(
    relay: string | undefined,
    after: string,
    changes: string,
  ): Promise<{ count: number; last: string | null }> {
    const { rows } = await this.#db.query<{ count: number; last: string | null }>(
      `with chosen as (
         select d.id from ${this.#place}.failed_delivery as d
         where d.state = 'dead' and ($1::text is null or d.relay = $1) and d.id > $2
         order by d.id limit ${portionMax}
         for update
       ), ${changes}
       select (select count(*)::integer from changed) as count, (select max(c.id)::text from chosen as c) as last`,
      [relay ?? null, after],
    )
    return rows[0] ?? { count: 0, last: null }
  }
}

function checkedId(id: string): string {
  if (/^\d{1,18}$/.test(id)) return id
  throw new InvalidInputError(`"${id}" is no id of a dead letter.`, {
    code: 'invalid_argument',
    hint: 'Pass the number that dead-letters list prints.',
  })
}

function unknown(ids: readonly string[]): InvalidInputError {
  return new InvalidInputError(
    `There is no dead letter ${ids.join(', ')}${ids.length > 1 ? ' (not each of them)' : ''}.`,
    {
      code: 'unknown_dead_letter',
      hint: 'See: trunkline dead-letters list',
      details: { ids },
    },
  )
}
