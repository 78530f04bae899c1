import { DeliveryError } from '../relay/index.ts'

/** Milliseconds that a delivery under way still has when the relay stops: enough for a healthy receiver to confirm. */
export const stopGraceMs: number = 1_000

/** The time limit of one call of `deliver`: its own, or soon after the relay wants to stop. */
export class Deadline implements Disposable {
  readonly #sinkName: string
  readonly #timeoutMs: number
  readonly #stop: AbortSignal
  readonly #over = new AbortController()
  readonly #timer: NodeJS.Timeout
  #graceTimer: NodeJS.Timeout | undefined

  constructor(sinkName: string, timeoutMs: number, stop: AbortSignal) {
    this.#sinkName = sinkName
    this.#timeoutMs = timeoutMs
    this.#stop = stop
    this.#timer = setTimeout(() => this.#over.abort(this.#timedOut()), timeoutMs)
    if (stop.aborted) this.#startGrace()
    else stop.addEventListener('abort', this.#startGrace, { once: true })
  }

  /** Aborts when the time is over, with the error that says why. */
  get signal(): AbortSignal {
    return this.#over.signal
  }

  /** True: nothing new is to be sent any more. */
  get isClosing(): boolean {
    return this.#stop.aborted || this.#over.signal.aborted
  }

  /** Settles as the promise does, or rejects when the time is over; the promise then goes on unheard. */
  async race<Value>(promise: Promise<Value>): Promise<Value> {
    const { signal } = this
    const { promise: over, reject } = Promise.withResolvers<never>()
    const onAbort = (): void => reject(signal.reason as Error)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([promise, over])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#graceTimer)
    this.#stop.removeEventListener('abort', this.#startGrace)
  }

  readonly #startGrace = (): void => {
    this.#graceTimer = setTimeout(() => this.#over.abort(this.#stopping()), stopGraceMs)
  }

  #timedOut(): DeliveryError {
    return new DeliveryError(`${this.#sinkName}: no confirmation within ${this.#timeoutMs} ms.`, {
      code: 'delivery_timed_out',
      retryable: true,
      hint: 'Look whether the receiver is overloaded or out of reach, or raise timeoutMs.',
    })
  }

  #stopping(): DeliveryError {
    return new DeliveryError(`${this.#sinkName}: the relay stops before the receiver has confirmed.`, {
      code: 'relay_stopping',
      retryable: true,
    })
  }
}
