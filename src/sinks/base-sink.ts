import { Service } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome, type Sink } from '../relay/index.ts'

/** What all sinks share: one start and stop discipline, and a stop that waits for the calls under way. */
export abstract class BaseSink extends Service implements Sink {
  abstract readonly name: string
  abstract readonly transport: string
  readonly #underWay = new Set<Promise<unknown>>()
  #stop = new AbortController()

  /** A start under way is given up: its receiver may be what it waits for. */
  override async stop(): Promise<void> {
    this.#stop.abort()
    try {
      await super.stop()
    } finally {
      this.#stop = new AbortController()
    }
  }

  /** Aborted when the sink is to stop, for `onStart`. */
  protected get stopSignal(): AbortSignal {
    return this.#stop.signal
  }

  async deliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    if (this.state !== 'running') {
      throw new DeliveryError(`${this.name}: nothing can be delivered, the sink is ${this.state}.`, {
        code: 'sink_not_running',
        retryable: true,
        hint: 'Call start() first, and deliver nothing after stop().',
      })
    }
    const call = this.onDeliver(batch, signal)
    this.#underWay.add(call)
    try {
      return await call
    } finally {
      this.#underWay.delete(call)
    }
  }

  /** Delivers while the sink runs; see `Sink.deliver`. */
  protected abstract onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]>

  /** Releases all that `onStart` and `onDeliver` took. No call is under way any more. */
  protected abstract onRelease(): Promise<void>

  protected async onStop(): Promise<void> {
    await Promise.allSettled(this.#underWay)
    await this.onRelease()
  }
}
