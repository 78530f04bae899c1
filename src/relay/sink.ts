import { TrunklineError, type TrunklineErrorOptions } from '../core/index.ts'
import type { Change } from '../log/index.ts'

/** One event or captured change as a sink gets it: encoded, the same at each attempt. */
export interface Delivery {
  /** A uuid, the same at each attempt and whoever delivers: what receivers tell duplicates by. */
  readonly messageId: string
  /** Where it belongs when the sink's own URL names no topic, exchange, subject or stream: `outbox.event.<topic>`. */
  readonly destination: string
  /** What orders deliveries: those of one key are delivered one after the other. Null: no order. */
  readonly key: string | null
  /** Texts for the transport's own headers; empty where the format puts all into the body. */
  readonly headers: Readonly<Record<string, string>>
  /** Media type of `body`. */
  readonly contentType: string
  readonly body: Buffer
  /** What it was made from. */
  readonly change: Change
}

/** Undefined: the receiver has confirmed that it keeps the delivery. Otherwise why it has not, or may not have. */
export type DeliveryOutcome = DeliveryError | undefined

/**
 * A place that deliveries go to. Implement this, and run the exported contract suite over it.
 *
 * S1. An outcome of undefined means that the receiver holds the delivery durably, as far as it can say so.
 * S2. Deliveries of one key reach the receiver in the order given; after one fails, later ones of its key in the same
 *     call are not sent, and have an outcome that says so (`not_attempted`).
 * S3. `deliver` always settles, within the sink's own time limits, and rejects only when nothing can be said of any of
 *     its deliveries; the relay then treats all as failed for the same reason, retryable.
 * S4. A lost connection is the sink's to mend: a later `deliver` connects again.
 * S5. No secret of its URL is in any message, name or log line.
 */
export interface Sink {
  /** For logs and `status`: the URL without secrets, say. */
  readonly name: string
  /**
   * What carries its deliveries: `kafka`, `amqp`, `nats`, `redis`, `mqtt`, `http`, or `lines` for one JSON text a line. Formats
   * choose the names of headers by it. Default: as a broker with headers and no names of its own.
   */
  readonly transport?: string | undefined
  /** Deliveries in one call, at most. Default 1: one at a time. */
  readonly batchSizeMax?: number | undefined
  /** Connects, or finds out early why it cannot: a wrong URL, a missing client package, refused credentials. */
  start(): Promise<void>
  /** Waits for calls under way and releases everything. */
  stop(): Promise<void>
  /** One outcome for each delivery, in their order. `signal`: give up soon, the relay stops. May be called concurrently for different keys. */
  deliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]>
}

export interface DeliveryErrorOptions extends TrunklineErrorOptions {
  /** How long the receiver asked to wait, in milliseconds (Retry-After). */
  readonly retryAfterMs?: number | undefined
}

/**
 * Why a delivery failed. `retryable` false: no retry can mend it (a payload the receiver refuses), and it becomes a dead
 * letter at once; true: it may work later (connection, 429, 503).
 */
export class DeliveryError extends TrunklineError {
  override readonly name = 'DeliveryError'
  readonly retryAfterMs: number | undefined

  constructor(message: string, options: DeliveryErrorOptions) {
    super(message, options)
    this.retryAfterMs = options.retryAfterMs
  }
}
