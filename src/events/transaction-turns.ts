import { AsyncLocalStorage } from 'node:async_hooks'

/**
 * Lets appends that share a transaction come one after the other, so that the handlers of one do not run between those of
 * another. One that a handler makes is part of the append it runs in, and does not wait for it.
 */
export class TransactionTurns {
  readonly #last = new WeakMap<object, Promise<unknown>>()
  readonly #within = new AsyncLocalStorage<readonly object[]>()

  async run<Result>(tx: object, append: () => Promise<Result>): Promise<Result> {
    const within = this.#within.getStore() ?? []
    if (within.includes(tx)) return append()
    const before = this.#last.get(tx)
    const turn = this.#within.run([...within, tx], async () => {
      await before
      return append()
    })
    this.#last.set(
      tx,
      turn.catch(() => undefined),
    )
    return turn
  }
}
