import { backoffMs } from '../core/index.ts'
import type { DeliveryError } from './sink.ts'

/**
 * Codes of failures that say nothing about a delivery: the receiver was not reached, has no room for anything (disk, memory), or the
 * call was cut short by ourselves.
 */
const unreachedCodes = new Set([
  'connection_failed',
  'connection_refused',
  'delivery_timed_out',
  'file_not_ndjson',
  'file_not_regular',
  'file_not_writable',
  'out_of_memory',
  'output_closed',
  'relay_stopping',
  'server_cannot_save',
  'sink_not_running',
])

/**
 * Whether the receiver is out of reach. Then nothing is attempted for a while (50 ms, doubling to 5 s), and no attempt is
 * counted: however long a broker is down, no delivery becomes a dead letter for it.
 */
export class Outage {
  #until = 0
  #failures = 0
  #succeededAt = 0
  #error: DeliveryError | undefined

  /** Milliseconds until the next attempt makes sense; 0: now. */
  get waitMs(): number {
    return this.#failures === 0 ? 0 : Math.max(0, this.#until - performance.now())
  }

  get error(): DeliveryError | undefined {
    return this.#error
  }

  /** Something was confirmed. True: that ends an outage. */
  succeed(): boolean {
    this.#succeededAt = performance.now()
    const wasDown = this.#failures > 0
    this.#failures = 0
    this.#error = undefined
    return wasDown
  }

  /**
   * True: the failure counts as an attempt. One by an unreachable receiver counts when that answered others since the same
   * delivery failed the last time: then the delivery is to blame, which makes it close the connection.
   *
   * @param before when it failed so last, by performance.now(); 0: never.
   */
  isCounted(error: DeliveryError, before: number): boolean {
    if (!error.retryable || !unreachedCodes.has(error.code)) return true
    return before > 0 && this.#succeededAt > before && error.code !== 'relay_stopping'
  }

  /** The receiver was not reached. True: that begins an outage. */
  fail(error: DeliveryError): boolean {
    const now = performance.now()
    if (now < this.#until && this.#failures > 0) return false
    this.#failures += 1
    this.#until = now + backoffMs(this.#failures)
    this.#error = error
    return this.#failures === 1
  }
}
