import type pg from 'pg'

/** What every store gets: about 130 bytes of JSON. (An interface would not do: Emmett asks for an index signature.) */
export type Item = {
  readonly order: number
  readonly item: string
  readonly quantity: number
  readonly priceCents: number
  readonly note: string
}

/** The type of every event. */
export const eventType = 'ItemAdded'
/** Connections that each store may use, and so the clients of a load. */
export const clients = 16
/** Events of one page where everything is read. */
export const pageSize = 1_000

/** What came out of a stream: proof that the payloads were decoded. */
export interface Fold {
  readonly events: number
  readonly quantity: number
}

/** An event store, used as its own documentation does it. */
export interface Contender extends AsyncDisposable {
  readonly name: string
  /** Appends to a stream that has `version` events, which the store checks; 0: it does not exist yet. */
  append(stream: string, version: number, items: readonly Item[]): Promise<void>
  /** Writes items by number, a hundred a stream, as fast as it goes, and leaves the table vacuumed. One writer: Emmett's readers lose nothing then. */
  fill(category: string, from: number, to: number): Promise<void>
  /** Reads a stream from its first event and folds it. */
  load(stream: string): Promise<Fold>
  /** Reads every event there is, in the store's order, a page at a time; `category`: the part of the streams' names before the `-`. */
  replay(category: string): Promise<Fold>
  /** Hands every event to a handler that does nothing and keeps the place after it; undefined: it has no such thing. */
  readonly follow: (() => Promise<Fold>) | undefined
  /** Events in its table. */
  stored(): Promise<number>
}

/** An item; the same number gives the same one. */
export function itemOf(n: number): Item {
  return {
    order: n,
    item: `sku-${n % 1_000}`,
    quantity: 1 + (n % 5),
    priceCents: 100 + (n % 9_000),
    note: 'leave it with the neighbour if nobody is at home',
  }
}

/** The streams of a category, in the order in which they are written. */
export function* streamsOf(
  category: string,
  from: number,
  to: number,
): Generator<{ readonly stream: string; readonly items: Item[] }> {
  for (let n = from; n < to; n += 100)
    yield { stream: `${category}-${n / 100}`, items: Array.from({ length: 100 }, (_, place) => itemOf(n + place)) }
}

/** Adds up what is read. */
export class Counter {
  #events = 0
  #quantity = 0

  add(item: Item): void {
    this.#events += 1
    this.#quantity += item.quantity
  }

  get fold(): Fold {
    return { events: this.#events, quantity: this.#quantity }
  }
}

/** Asks a store's table itself, past the store. */
export async function countRows(pool: pg.Pool, table: string): Promise<number> {
  const { rows } = await pool.query<{ count: string }>(`select count(*) from ${table}`)
  return Number(rows[0]?.count)
}
