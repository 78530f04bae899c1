import { TrunklineError } from '../core/index.ts'
import type { Queryable } from '../postgres/index.ts'

/** The connection of one transaction as handlers have it: closed when the transaction ends, whoever still holds it then. */
export class HandlerConnection implements Queryable {
  readonly #db: Queryable
  #isOpen = true
  #hasFailed = false
  #running = 0

  constructor(db: Queryable) {
    this.#db = db
  }

  /** Whatever a driver takes besides text and values goes through. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as Queryable has it
  async query<Row extends Record<string, unknown>>(...parameters: [string, unknown[]?]): Promise<{ rows: Row[] }> {
    if (this.#isOpen) return this.#noted(this.#db.query<Row>(...parameters))
    throw new TrunklineError('A handler uses its connection after its transaction has ended.', {
      code: 'transaction_ended',
      hint: 'Await what the handler does, and return its promise.',
    })
  }

  /** True once after a statement failed, or while one runs that nobody waits for: it may fail yet. */
  takeFailure(): boolean {
    const hasFailed = this.#hasFailed || this.#running > 0
    this.#hasFailed = false
    return hasFailed
  }

  async #noted<Result>(result: Promise<Result>): Promise<Result> {
    this.#running += 1
    try {
      return await result
    } catch (error) {
      this.#hasFailed = true
      throw error
    } finally {
      this.#running -= 1
    }
  }

  close(): void {
    this.#isOpen = false
  }
}
