/** How long one who is at his turn keeps the next waiting, in milliseconds. */
const turnMs = 2_000

interface Turn {
  readonly begun: Promise<void>
  readonly ended: Promise<void>
}

/**
 * Lets commands of one aggregate wait for each other in this process, in the order in which they came: at the same time they would
 * only lose against each other. No lock: whoever takes long, or waits for one who waits for him, is not waited for any longer, and
 * the expected version decides.
 */
export class Turns {
  /** By aggregate id. */
  readonly #last = new Map<string, Turn>()

  async take<Result>(id: string, run: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(id)
    const begun = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<void>()
    const own = { begun: begun.promise, ended: ended.promise }
    this.#last.set(id, own)
    try {
      if (before !== undefined) {
        await before.begun
        await endOf(before.ended)
      }
      begun.resolve()
      return await run()
    } finally {
      ended.resolve()
      if (this.#last.get(id) === own) this.#last.delete(id)
    }
  }
}

async function endOf(turn: Promise<void>): Promise<void> {
  const limit = Promise.withResolvers<void>()
  const timer = setTimeout(limit.resolve, turnMs)
  await Promise.race([turn, limit.promise])
  clearTimeout(timer)
}
