import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { type Trunkline } from '../../index.ts'
import { withClient } from '../../postgres/index.ts'
import { nowMs } from './clock.ts'

/** An order as its event tells it. */
export interface Order {
  /** Its id. */
  readonly order: number
  readonly customer: string
  /** Counts up for each customer: what shows the order of deliveries. */
  readonly number: number
}

const customers = 20

/** `billed` has no unique constraint: only the inbox keeps an order from being counted twice. */
export const orderTables: string = `
  create table customer (id text primary key, orders integer not null default 0);
  insert into customer (id) select 'c' || n from generate_series(1, ${customers}) as n;
  create table shop_order (
    id bigint generated always as identity primary key,
    customer text not null references customer,
    number integer not null,
    amount numeric(10, 2) not null
  );
  create table billed (
    id bigint generated always as identity primary key,
    order_id bigint not null,
    customer text not null,
    number integer not null
  );
  create index on billed (order_id);`

/** The topic of the events. */
export const orderTopic = 'order'
/** Those who order at the same time. */
const shoppers = 3
/** Longest pause of each between two orders, in milliseconds. */
const pauseMaxMs = 150
/** Every so many orders are rolled back: nobody may hear of them. */
const rolledBackEach = 8

/** Places orders while it is open: the order and its event in one transaction. */
export class Orders {
  readonly #trunkline: Trunkline
  readonly #pool: pg.Pool
  readonly #onCommit: (order: number, atMs: number) => void
  #loops: Promise<unknown> | undefined
  #isOpen = false
  #placed = 0
  /** Transactions that were rolled back. */
  rollbacks = 0

  /** @param onCommit called right before COMMIT is sent; the commit may fail. */
  constructor(trunkline: Trunkline, pool: pg.Pool, onCommit: (order: number, atMs: number) => void) {
    this.#trunkline = trunkline
    this.#pool = pool
    this.#onCommit = onCommit
  }

  open(): void {
    if (this.#isOpen) return
    this.#isOpen = true
    this.#loops = Promise.all(Array.from({ length: shoppers }, () => this.#shop()))
  }

  /** Resolves when no transaction is under way. */
  async close(): Promise<void> {
    this.#isOpen = false
    await this.#loops
  }

  async #shop(): Promise<void> {
    while (this.#isOpen) {
      // While the database is down there are no orders.
      await this.#place().catch(() => undefined)
      await delay(Math.random() * pauseMaxMs)
    }
  }

  async #place(): Promise<void> {
    // What a failure left of a transaction goes with its connection.
    await withClient(this.#pool, (client) => this.#placeOn(client), { isReusable: () => false })
  }

  async #placeOn(client: pg.PoolClient): Promise<void> {
    await client.query('begin')
    const order = await this.#write(client)
    this.#placed += 1
    if (this.#placed % rolledBackEach === 0) {
      await client.query('rollback')
      this.rollbacks += 1
    } else {
      this.#onCommit(order, nowMs())
      await client.query('commit')
    }
  }

  async #write(client: pg.PoolClient): Promise<number> {
    const { rows } = await client.query<{ id: number; customer: string; number: number; amount: string }>(
      `with c as (
         update customer set orders = orders + 1 where id = $1 returning id, orders
       )
       insert into shop_order (customer, number, amount) select c.id, c.orders, round((random() * 100)::numeric, 2) from c
       returning id::integer, customer, number, amount`,
      [`c${1 + Math.floor(Math.random() * customers)}`],
    )
    const [row] = rows
    if (row === undefined) throw new Error('An order was not written.')
    const { id: order, customer, number, amount } = row
    await this.#trunkline.emit(client, {
      topic: orderTopic,
      key: customer,
      type: 'OrderPlaced',
      payload: { order, customer, number, amount },
    })
    return order
  }
}
