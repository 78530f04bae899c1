import type { Writable } from 'node:stream'
import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { deliverByKey, notAttempted } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { notOneLine } from './line-file.ts'

export interface StdoutSinkOptions {
  /** Default `process.stdout`. It is never ended. */
  readonly stream?: Writable | undefined
  /** Milliseconds that a call may take; a reader that does not read lets it run out. Default 30,000. */
  readonly timeoutMs?: number | undefined
}

const stdoutBatchSizeMax = 500

/** One delivery a line on standard output. Confirmed when the system has taken it, which says nothing of who reads. */
export class StdoutSink extends BaseSink {
  readonly name = 'stdout:'
  readonly transport = 'lines'
  readonly batchSizeMax: number = stdoutBatchSizeMax
  readonly #stream: Writable
  readonly #timeoutMs: number
  /** The write under way: nothing is queued behind one that the reader does not take. */
  #writing: Promise<void> = Promise.resolve()
  #broken: unknown

  constructor({ stream = process.stdout, timeoutMs }: StdoutSinkOptions = {}) {
    super()
    this.#stream = stream
    this.#timeoutMs = checkedCount('timeoutMs', timeoutMs, 30_000)
  }

  protected async onStart(): Promise<void> {
    this.#stream.on('error', this.#onError)
  }

  protected async onRelease(): Promise<void> {
    this.#stream.off('error', this.#onError)
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    return await deliverByKey(batch, deadline, (delivery) => this.#deliverOne(delivery, deadline))
  }

  async #deliverOne({ body }: Delivery, deadline: Deadline): Promise<void> {
    if (body.includes('\n')) throw notOneLine(this.name)
    const turn = this.#writing.then(async () => {
      if (deadline.isClosing) throw notAttempted(false)
      await this.#write(body)
    })
    this.#writing = turn.catch(() => undefined)
    await deadline.race(turn)
  }

  #write(body: Buffer): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    if (this.#broken !== undefined || this.#stream.destroyed) {
      reject(this.#closed(this.#broken))
      return promise
    }
    this.#stream.write(Buffer.concat([body, Buffer.from('\n')]), (error) => {
      if (error === null || error === undefined) resolve()
      else reject(this.#closed(error))
    })
    return promise
  }

  readonly #onError = (error: unknown): void => {
    this.#broken = error
  }

  #closed(cause: unknown): DeliveryError {
    const found = cause === undefined ? 'it was closed' : messageOf(cause)
    return new DeliveryError(`Nobody reads standard output any more: ${found}.`, {
      code: 'output_closed',
      retryable: true,
      hint: 'Start the relay again; what was not confirmed is delivered then.',
      cause,
    })
  }
}
