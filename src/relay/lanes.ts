import { Pause, pause } from '../core/index.ts'
import { Fifo } from './fifo.ts'
import type { Entry } from './slot-share.ts'

/** Bytes of bodies in one call of the sink, about. */
const batchBytesMax = 4 * 1024 * 1024
/** Deliveries in one call while their slot is suspect: after another death each of them is attempted alone. */
const suspectBatchMax = 20
/** Pause of a lane after an error that nobody expects, in milliseconds. */
const errorPauseMs = 1_000

export interface LanesOptions {
  readonly count: number
  readonly batchSizeMax: number
  /**
   * Milliseconds until something may be attempted; 0: now. `hasWaited`: the lane has waited for the receiver once, and has its
   * turn: one delivery that always fails must not keep the others from showing that the receiver is there.
   */
  readonly gate: (hasWaited: boolean) => number
  /** Delivers, and gives back what is to be attempted again, in its order. */
  readonly deliver: (batch: readonly Entry[]) => Promise<readonly Entry[]>
  /** `deliver` threw, which it should not: what is not done of the batch comes again. */
  readonly onError: (error: unknown) => void
}

interface Lane {
  readonly queue: Fifo<Entry>
  readonly pause: Pause
  isBusy: boolean
}

/** Queues of deliveries, one call of the sink at a time for each. A key has one lane, so its deliveries keep their order. */
export class Lanes {
  readonly #options: LanesOptions
  readonly #lanes: readonly Lane[]
  #isStopped = false
  #busy = 0
  #onIdle: (() => void)[] = []

  constructor(options: LanesOptions) {
    this.#options = options
    this.#lanes = Array.from({ length: options.count }, () => ({
      queue: new Fifo<Entry>(),
      pause: new Pause(),
      isBusy: false,
    }))
  }

  push(entry: Entry): void {
    const lane = this.#lanes[entry.lane % this.#lanes.length]
    if (lane === undefined || this.#isStopped) return
    lane.queue.push(entry)
    if (!lane.isBusy) void this.#run(lane)
  }

  /** Resolves when nothing is queued and nothing in flight, or when it is stopped. */
  async idle(): Promise<void> {
    if (this.#busy === 0) return
    await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  /** Begins no call any more. Resolves when those in flight have ended. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const lane of this.#lanes) {
      lane.queue.clear()
      lane.pause.wake()
    }
    await this.idle()
  }

  /** Something changed that the gate tells of. */
  wake(): void {
    for (const lane of this.#lanes) lane.pause.wake()
  }

  async #run(lane: Lane): Promise<void> {
    lane.isBusy = true
    this.#busy += 1
    // What is pushed in this turn of the event loop comes along in the first batch.
    await Promise.resolve()
    let hasWaited = false
    while (lane.queue.length > 0 && !this.#isStopped) {
      const waitMs = this.#options.gate(hasWaited)
      if (waitMs > 0) {
        lane.pause.clear()
        await lane.pause.wait(waitMs)
        hasWaited = true
        continue
      }
      hasWaited = false
      const batch = this.#take(lane.queue)
      if (batch.length === 0) continue
      const again = await this.#deliver(batch)
      for (const entry of again) entry.isStarted = false
      lane.queue.unshift(again)
    }
    lane.isBusy = false
    this.#busy -= 1
    if (this.#busy > 0) return
    const waiting = this.#onIdle
    this.#onIdle = []
    for (const resolve of waiting) resolve()
  }

  async #deliver(batch: readonly Entry[]): Promise<readonly Entry[]> {
    try {
      return await this.#options.deliver(batch)
    } catch (error) {
      this.#options.onError(error)
      await pause(errorPauseMs)
      return batch.filter(({ isDone }) => !isDone)
    }
  }

  #take(queue: Fifo<Entry>): Entry[] {
    const batch: Entry[] = []
    let bytes = 0
    while (batch.length < this.#options.batchSizeMax) {
      const entry = queue.peek()
      if (entry === undefined || (batch.length > 0 && bytes + entry.bytes > batchBytesMax)) break
      if (entry.isSuspect && batch.length >= suspectBatchMax) break
      queue.shift()
      // Of a slot that was lost or is given back: its next owner delivers it.
      if (!entry.share.isWanted(entry)) continue
      entry.isStarted = true
      bytes += entry.bytes
      batch.push(entry)
    }
    return batch
  }
}
