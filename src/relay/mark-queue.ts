import type { Entry } from './slot-share.ts'

interface Waiting {
  readonly batch: readonly Entry[]
  readonly settle: PromiseWithResolvers<boolean>
}

/** Entries in one statement, at most. */
const entriesMax = 1_000

/**
 * Marks of attempts, written before they are made: what comes while one statement is under way goes with the next one. After a
 * death every call of the sink waits for its mark, and calls of one delivery each would wait for a round trip each, in turn.
 */
export class MarkQueue {
  readonly #write: (entries: readonly Entry[]) => Promise<boolean>
  #waiting: Waiting[] = []
  #isWriting = false

  /** @param write false: a slot is no longer ours. */
  constructor(write: (entries: readonly Entry[]) => Promise<boolean>) {
    this.#write = write
  }

  /** Resolves when the batch is marked. False: a slot of it, or of what was written with it, is no longer ours. */
  async add(batch: readonly Entry[]): Promise<boolean> {
    const settle = Promise.withResolvers<boolean>()
    this.#waiting.push({ batch, settle })
    if (!this.#isWriting) void this.#run()
    return settle.promise
  }

  async #run(): Promise<void> {
    this.#isWriting = true
    // What other lanes begin in this turn of the event loop comes along.
    await Promise.resolve()
    for (let group = this.#next(); group.length > 0; group = this.#next()) {
      try {
        const isOurs = await this.#write(group.flatMap(({ batch }) => batch))
        for (const { settle } of group) settle.resolve(isOurs)
      } catch (error) {
        for (const { settle } of group) settle.reject(error)
      }
    }
    this.#isWriting = false
  }

  #next(): Waiting[] {
    let count = 0
    const end = this.#waiting.findIndex(({ batch }) => (count += batch.length) > entriesMax)
    return this.#waiting.splice(0, end < 0 ? this.#waiting.length : Math.max(1, end))
  }
}
