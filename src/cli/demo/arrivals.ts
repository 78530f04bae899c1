import { Latencies } from './latencies.ts'
import { type Order } from './orders.ts'

/** What one receiver must agree with the table in. */
export interface ArrivalCheck {
  /** Orders of the table that did not arrive. */
  readonly lost: number
  /** Orders that arrived, and are not in the table: rolled back. */
  readonly invented: number
  /** First arrivals that came after one of a later order of the same customer. */
  readonly outOfOrder: number
}

/** What arrived in one place. */
export class Arrivals {
  readonly latencies: Latencies = new Latencies()
  readonly #orders = new Set<number>()
  readonly #lastNumbers = new Map<string, number>()
  /** Arrivals beyond the first of an order. */
  repeated = 0
  #outOfOrder = 0

  get count(): number {
    return this.#orders.size
  }

  has(order: number): boolean {
    return this.#orders.has(order)
  }

  /** @param latencyMs since COMMIT was sent; undefined: not to be counted. */
  add({ order, customer, number }: Order, latencyMs: number | undefined): void {
    if (this.#orders.has(order)) {
      this.repeated += 1
      return
    }
    this.#orders.add(order)
    if (number <= (this.#lastNumbers.get(customer) ?? 0)) this.#outOfOrder += 1
    else this.#lastNumbers.set(customer, number)
    if (latencyMs !== undefined) this.latencies.add(latencyMs)
  }

  /** @param orders ids of all that were committed. */
  check(orders: ReadonlySet<number>): ArrivalCheck {
    return {
      lost: orders.difference(this.#orders).size,
      invented: this.#orders.difference(orders).size,
      outOfOrder: this.#outOfOrder,
    }
  }
}
