import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { pause } from '../../core/index.ts'
import { createTrunkline } from '../../index.ts'
import { Arrivals } from './arrivals.ts'
import { elapsedMs, nowMs, rounded } from './clock.ts'
import { type DeliveriesEvent, type DemoEvent, type OrderCheckEvent } from './events.ts'
import { FileTail } from './file-tail.ts'
import { HelperProcess } from './helper-process.ts'
import { type Database } from './instance-process.ts'
import { type Order, Orders, orderTables } from './orders.ts'

/** What the receiver and the relays say. */
type Told =
  | { readonly tell: 'ready'; readonly port?: number }
  | ({ readonly tell: 'arrived'; readonly atMs: number } & Order)

/** How long all orders may take to arrive once there are no new ones, in milliseconds. */
const arriveTimeoutMs = 60_000
/** How often it tells how far it is, in milliseconds. */
const tellIntervalMs = 3_000

/** Orders, the relays that deliver their events to a webhook and a file, and what arrives. */
export class Deliveries {
  readonly #database: () => Database
  readonly #pool: pg.Pool
  readonly #orders: Orders
  readonly #tell: (event: DemoEvent) => void
  readonly #webhook = new Arrivals()
  readonly #file = new Arrivals()
  /** When COMMIT was sent, of orders that were written while nothing was broken. */
  readonly #commitAtMs = new Map<number, number>()
  readonly #tail: FileTail
  #receiver: HelperProcess<Told> | undefined
  #port = 0
  #isDisturbed = false

  private constructor(pool: pg.Pool, database: () => Database, path: string, tell: (event: DemoEvent) => void) {
    this.#database = database
    this.#pool = pool
    this.#tell = tell
    this.#tail = new FileTail(path, (line) => this.#readLine(line))
    const trunkline = createTrunkline({ pool, schema: database().schema })
    this.#orders = new Orders(trunkline, pool, (order, atMs) => {
      if (!this.#isDisturbed) this.#commitAtMs.set(order, atMs)
    })
  }

  /** Starts all, and the orders. @param parts what was started, to be ended in the reverse order. */
  static async start(
    parts: AsyncDisposableStack,
    database: () => Database,
    tell: (event: DemoEvent) => void,
  ): Promise<Deliveries> {
    const { url, schema } = database()
    const pool = new pg.Pool({ connectionString: url, application_name: 'trunkline demo', max: 5 })
    pool.on('error', () => undefined)
    parts.defer(() => pool.end())
    await pool.query(orderTables)
    const directory = await mkdtemp(join(tmpdir(), 'trunkline-demo-orders-'))
    parts.defer(() => rm(directory, { recursive: true }))
    const path = join(directory, 'orders.ndjson')
    const deliveries = new Deliveries(pool, database, path, tell)
    parts.defer(() => deliveries.#tail[Symbol.dispose]())
    parts.defer(() => deliveries.#receiver?.stop())
    await deliveries.startReceiver()
    const relays = new HelperProcess<Told>({
      what: 'The process with the relays',
      file: new URL('./relays.ts', import.meta.url),
      env: {
        DATABASE_URL: url,
        TRUNKLINE_SCHEMA: schema,
        WEBHOOK_URL: `http://127.0.0.1:${deliveries.#port}/orders`,
        FILE: path,
      },
      onTold: () => undefined,
      onDied: (how) => tell({ event: 'note', text: `The relays ended with ${how}.` }),
    })
    parts.defer(() => relays.stop())
    await relays.ready()
    const timer = setInterval(() => tell(deliveries.figures()), tellIntervalMs)
    parts.defer(() => clearInterval(timer))
    parts.defer(() => deliveries.#orders.close())
    deliveries.#orders.open()
    return deliveries
  }

  /** How many of the orders that are committed have not arrived yet. */
  async waiting(): Promise<{ readonly webhook: number; readonly file: number }> {
    const orders = await this.#committed()
    return { webhook: this.#webhook.check(orders).lost, file: this.#file.check(orders).lost }
  }

  /** Starts the receiver, on the port that it had. */
  async startReceiver(): Promise<void> {
    const { url, schema } = this.#database()
    this.#receiver = new HelperProcess<Told>({
      what: 'The webhook receiver',
      file: new URL('./receiver.ts', import.meta.url),
      env: { DATABASE_URL: url, TRUNKLINE_SCHEMA: schema, RECEIVER_PORT: String(this.#port) },
      onTold: (told) => {
        if (told.tell === 'arrived') this.#arrive(this.#webhook, told, told.atMs)
      },
      onDied: (how) => this.#tell({ event: 'note', text: `The webhook receiver ended with ${how}.` }),
    })
    const told = await this.#receiver.ready()
    if (told.tell === 'ready') this.#port = told.port ?? 0
  }

  async killReceiver(): Promise<void> {
    await this.#receiver?.kill()
  }

  /** Latencies of orders that are written during the action are not counted: something is broken meanwhile. */
  async disturbed(action: () => Promise<void>): Promise<void> {
    this.#isDisturbed = true
    try {
      await action()
    } finally {
      this.#isDisturbed = false
    }
  }

  figures(): DeliveriesEvent {
    return {
      event: 'deliveries',
      webhook: {
        orders: this.#webhook.count,
        repeated: this.#webhook.repeated,
        ms: this.#webhook.latencies.percentiles(),
      },
      file: { orders: this.#file.count, repeated: this.#file.repeated, ms: this.#file.latencies.percentiles() },
    }
  }

  /** Places no orders, waits until all have arrived, compares, and goes on. */
  async check(after: string, signal: AbortSignal): Promise<OrderCheckEvent> {
    const started = nowMs()
    await this.#orders.close()
    const orders = await this.#untilArrived(signal)
    const [webhook, file] = [this.#webhook.check(orders), this.#file.check(orders)]
    const billed = await this.#billed()
    // Before there are new orders: the figures are of those that were compared.
    this.#tell(this.figures())
    this.#orders.open()
    const arrived = [webhook, file].map(({ lost, invented, outOfOrder }) => lost + invented + outOfOrder)
    return {
      event: 'order-check',
      after,
      orders: orders.size,
      rollbacks: this.#orders.rollbacks,
      webhook: { ...webhook, repeated: this.#webhook.repeated },
      file: { ...file, repeated: this.#file.repeated },
      billed,
      differences: arrived.reduce((sum, one) => sum + one, billed.wrong + billed.outOfOrder),
      checkMs: rounded(elapsedMs(started)),
    }
  }

  /** Returns the orders of the table, when all are everywhere or the time is over. */
  async #untilArrived(signal: AbortSignal): Promise<ReadonlySet<number>> {
    const orders = await this.#committed()
    const deadline = nowMs() + arriveTimeoutMs
    while (nowMs() < deadline) {
      signal.throwIfAborted()
      this.#tail.read()
      if (this.#webhook.check(orders).lost === 0 && this.#file.check(orders).lost === 0) break
      await pause(20)
    }
    return orders
  }

  async #committed(): Promise<ReadonlySet<number>> {
    const { rows } = await this.#pool.query<{ id: number }>('select id::integer from shop_order')
    return new Set(rows.map(({ id }) => id))
  }

  /** What the consumer has made of it: each order billed once, those of a customer in their order. */
  async #billed(): Promise<OrderCheckEvent['billed']> {
    const { rows } = await this.#pool.query<OrderCheckEvent['billed']>(`
      select
        (select count(*) from billed)::integer as orders,
        (select count(*) from shop_order as o where 1 <> (select count(*) from billed as b where b.order_id = o.id))::integer
          + (select count(*) from billed as b where not exists (select from shop_order as o where o.id = b.order_id))::integer as wrong,
        (select count(*) from (
          select b.number <= lag(b.number) over (partition by b.customer order by b.id) as is_late from billed as b
        ) as b where b.is_late)::integer as "outOfOrder"`)
    return rows[0] ?? { orders: 0, wrong: 0, outOfOrder: 0 }
  }

  #readLine(line: string): void {
    const { payload } = JSON.parse(line) as { payload: Order }
    this.#arrive(this.#file, payload, nowMs())
  }

  #arrive(where: Arrivals, order: Order, atMs: number): void {
    const commitAtMs = this.#commitAtMs.get(order.order)
    where.add(order, commitAtMs === undefined || this.#isDisturbed ? undefined : atMs - commitAtMs)
    if (this.#webhook.has(order.order) && this.#file.has(order.order)) this.#commitAtMs.delete(order.order)
  }
}
