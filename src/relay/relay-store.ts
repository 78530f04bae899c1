import type pg from 'pg'
import { afterFailOver } from '../log/index.ts'
import { quoteIdentifier } from '../postgres/index.ts'
import { queryRelay } from './relay-pool.ts'

/** Longest time that reading stored deliveries may take, one of 50 MB as well, in milliseconds. */
const beginTimeoutMs = 30_000

/** What a heartbeat tells. */
export interface Beat {
  /** False: the process was removed, and owns nothing any more. */
  readonly alive: boolean
  /** Slots that it should own. */
  readonly share: number
  readonly owned: readonly number[]
  /** Slots that nobody owns. */
  readonly vacant: number
}

export interface TakenSlot {
  readonly slot: number
  readonly epoch: string
  readonly position: string
  readonly suspect: boolean
}

export interface SavedSlot {
  readonly slot: number
  readonly position: string
  readonly suspect: boolean
}

/** A failure, or what waits behind one, to be stored. */
export interface NewFailure {
  readonly slot: number
  readonly topic: string
  readonly key: string | null
  readonly message_id: string
  readonly log_id: string
  readonly xid: string
  /** JSON. */
  readonly change: string
  readonly state: 'retry' | 'dead'
  readonly holds: boolean
  /** 0: it only waits. */
  readonly attempts: number
  readonly delay_ms: number
  /** Since its first attempt. */
  readonly since_ms: number
  readonly error_code: string | null
  readonly error_message: string | null
}

export interface DueFailure {
  readonly id: string
  readonly slot: number
  readonly topic: string
  readonly key: string | null
  readonly log_id: string
  readonly attempts: number
  /** Milliseconds until it is to be attempted, by the server's clock. */
  readonly due_ms: number
}

export interface BegunAttempt {
  readonly id: string
  /** With this one. */
  readonly attempts: number
  /** JSON. */
  readonly change: string
  readonly since_ms: number
}

export interface AttemptFailure {
  readonly id: string
  readonly state: 'retry' | 'dead'
  readonly holds: boolean
  readonly attempts: number
  readonly delay_ms: number
  readonly error_code: string | null
  readonly error_message: string | null
}

export interface StoredMark {
  readonly slot: number
  readonly id: string
  readonly xid: string
  readonly attempts: number
  readonly alone: boolean
}

/** What is in the tables of one relay, as one of its processes sees and changes it. One statement each. */
export class RelayStore {
  readonly #pool: pg.Pool
  /** For what renews the lease: it must not wait behind 50 MB that are being stored. */
  readonly #beatPool: pg.Pool
  readonly #place: string
  readonly #relay: string
  readonly #owner: string

  constructor(pools: { readonly keep: pg.Pool; readonly beat: pg.Pool }, schema: string, relay: string, owner: string) {
    this.#pool = pools.keep
    this.#beatPool = pools.beat
    this.#place = quoteIdentifier(schema)
    this.#relay = relay
    this.#owner = owner
  }

  /** Returns the relay's number of slots. */
  async join(member: {
    readonly process: string
    readonly leaseMs: number
    readonly slots: number
    readonly topicIds: readonly string[] | undefined
    readonly sink: string
    readonly from: string
  }): Promise<number> {
    const { process, leaseMs, slots, topicIds, sink, from } = member
    return this.#value('relay_join($1, $2, $3, $4, $5, $6::bigint[], $7, $8)', [
      process,
      leaseMs,
      slots,
      topicIds ?? null,
      sink,
      from,
    ])
  }

  async beat(leaseMs: number, moves: boolean): Promise<Beat> {
    const { rows } = await queryRelay<Beat & pg.QueryResultRow>(
      this.#beatPool,
      `select b.alive, b.share, b.owned::integer[] as owned, b.vacant from ${this.#place}.relay_beat($1, $2, $3, $4) as b`,
      [this.#relay, this.#owner, leaseMs, moves],
    )
    const [row] = rows
    if (row === undefined) throw new Error('relay_beat() gave no row.')
    return row
  }

  async take(count: number): Promise<TakenSlot[]> {
    return this.#rows(
      `select t.slot::integer as slot, t.epoch::text, t.position, t.suspect from ${this.#place}.relay_take($1, $2, $3) as t`,
      [count],
    )
  }

  /** Returns the slots of these that the process still owns (or owned until it gave them back). */
  async save(
    slots: readonly SavedSlot[],
    finished: readonly string[],
    givesBack: boolean,
  ): Promise<ReadonlySet<number>> {
    const saved = await this.#value<number[]>(
      'relay_save($1, $2, $3::smallint[], $4::text[], $5::boolean[], $6::bigint[], $7)::integer[]',
      [
        slots.map(({ slot }) => slot),
        slots.map(({ position }) => position),
        slots.map(({ suspect }) => suspect),
        finished,
        givesBack,
      ],
    )
    return new Set(saved)
  }

  async leave(): Promise<void> {
    await this.#value('relay_leave($1, $2)', [])
  }

  async marks(slots: readonly number[]): Promise<StoredMark[]> {
    return this.#rowsOf(
      `select m.slot::integer as slot, m.log_id::text as id, m.xid::text, m.attempts::integer as attempts, m.alone
       from ${this.#place}.relay_mark as m where m.relay = $1 and m.slot = any ($2)`,
      [this.#relay, slots],
    )
  }

  /** What of these slots is stored as failed although their position does not cover it: it will be read again. */
  async storedAhead(slots: readonly number[]): Promise<{ slot: number; id: string; xid: string }[]> {
    return this.#rows(
      `select d.slot::integer as slot, d.log_id::text as id, d.xid::text
       from ${this.#place}.failed_delivery as d join ${this.#place}.relay_place as s on s.relay = d.relay and s.slot = d.slot
       where d.relay = $1 and s.owner = $2 and d.slot = any ($3)
         and d.xid >= txid_snapshot_xmin(s.snapshot) and not ${this.#place}.is_covered(s.position, d.log_id, d.xid)`,
      [slots],
    )
  }

  /** Keys of these slots that are held back, and how many deliveries are stored for each. */
  async held(slots: readonly number[]): Promise<{ slot: number; topic: string; key: string | null; count: number }[]> {
    return this.#rowsOf(
      `select d.slot::integer as slot, d.topic, d.key, count(*)::integer as count from ${this.#place}.failed_delivery as d
       where d.relay = $1 and d.slot = any ($2) and (d.state = 'retry' or d.holds)
       group by d.slot, d.topic, d.key`,
      [this.#relay, slots],
    )
  }

  /** False: a slot is no longer ours. */
  async mark(
    slots: readonly number[],
    ids: readonly string[],
    xids: readonly string[],
    isAlone: boolean,
  ): Promise<boolean> {
    return this.#value('relay_mark_attempts($1, $2, $3::smallint[], $4::bigint[], $5::bigint[], $6)', [
      slots,
      ids,
      xids,
      isAlone,
    ])
  }

  /** False: a slot is no longer ours, and nothing was stored. */
  async storeFailures(failures: readonly NewFailure[]): Promise<boolean> {
    const text = JSON.stringify(failures)
    const [row] = await this.#rowsOf<{ isStored: boolean }>(
      `select ${this.#place}.relay_store_failures($1, $2, $3::json) as "isStored"`,
      [this.#relay, this.#owner, text],
      largeTimeoutMs(text.length),
    )
    return row?.isStored === true
  }

  /** @param isThorough also what waits behind another one, in case that is gone. */
  async due(count: number, isThorough: boolean): Promise<DueFailure[]> {
    return this.#rows(
      `select d.id::text, d.slot::integer as slot, d.topic, d.key, d.log_id::text, d.attempts, d.due_ms::float8 as due_ms
       from ${this.#place}.relay_due($1, $2, $3, $4) as d`,
      [count, isThorough],
    )
  }

  async begin(firstId: string, behind: number, delayMs: number): Promise<BegunAttempt[]> {
    return this.#rowsOf(
      `select b.id::text, b.attempts, b.change, b.since_ms::float8 as since_ms
       from ${this.#place}.relay_begin_attempts($1, $2, $3, $4, $5) as b`,
      [this.#relay, this.#owner, firstId, behind, Math.ceil(delayMs)],
      beginTimeoutMs,
    )
  }

  /** Returns how many of the key are stored still. */
  async settle(
    key: { readonly slot: number; readonly topic: string; readonly key: string | null },
    done: readonly string[],
    failures: readonly AttemptFailure[],
  ): Promise<number> {
    return this.#value('relay_settle_attempts($1, $2, $3::bigint[], $4::json, $5::smallint, $6, $7)', [
      done,
      JSON.stringify(failures),
      key.slot,
      key.topic,
      key.key,
    ])
  }

  /** The change of a stored delivery, as JSON. */
  async changeOf(id: string): Promise<string | undefined> {
    const [row] = await this.#rowsOf<{ change: string }>(
      `select d.change::text from ${this.#place}.failed_delivery as d where d.id = $1`,
      [id],
    )
    return row?.change
  }

  /** What is not done of all that a snapshot sees. */
  async behind(snapshot: string): Promise<{ slots: number; retries: number }> {
    const [row] = await this.#rowsOf<{ slots: number; retries: number }>(
      `select b.slots, b.retries from ${this.#place}.relay_behind($1, $2::text::txid_snapshot) as b`,
      [this.#relay, snapshot],
    )
    return row ?? { slots: 0, retries: 0 }
  }

  /** The same places, in the history that a promoted standby goes on with. */
  async afterFailOver(slots: readonly TakenSlot[]): Promise<TakenSlot[]> {
    const [row] = await this.#rowsOf<{ identity: string }>(`select ${this.#place}.log_identity() as identity`, [])
    const identity = row?.identity ?? ''
    return slots.map(({ position, ...slot }) => ({ ...slot, position: afterFailOver(position, identity) }))
  }

  async presentSnapshot(): Promise<string> {
    const [row] = await this.#rowsOf<{ snapshot: string }>('select txid_current_snapshot()::text as snapshot', [])
    return row?.snapshot ?? ''
  }

  /** Slots that the process owns by the database, as `take` gives them: its answer may have been lost. */
  async owned(slots: readonly number[]): Promise<TakenSlot[]> {
    return this.#rows(
      `select s.slot::integer as slot, s.epoch::text, s.position, s.suspect from ${this.#place}.relay_place as s
       where s.relay = $1 and s.owner = $2 and s.slot = any ($3)`,
      [slots],
    )
  }

  async #value<Value>(call: string, values: readonly unknown[]): Promise<Value> {
    const [row] = await this.#rows<{ value: Value }>(`select ${this.#place}.${call} as value`, values)
    return row?.value as Value
  }

  async #rows<Row extends object>(text: string, values: readonly unknown[]): Promise<Row[]> {
    return this.#rowsOf<Row>(text, [this.#relay, this.#owner, ...values])
  }

  async #rowsOf<Row extends object>(text: string, values: readonly unknown[], timeoutMs?: number): Promise<Row[]> {
    const { rows } = await queryRelay<Row & pg.QueryResultRow>(this.#pool, text, [...values], timeoutMs)
    return rows
  }
}

/** Milliseconds for a statement with so many characters: 5 s, and one for each 500,000. */
function largeTimeoutMs(characters: number): number {
  return 5_000 + characters / 500
}
