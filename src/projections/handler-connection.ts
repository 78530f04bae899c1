import { TrunklineError } from '../core/index.ts'
import type { Queryable } from '../postgres/index.ts'

/** The connection of one transaction as handlers have it: closed when the transaction ends, whoever still holds it then. */
export class HandlerConnection implements Queryable {
  readonly #db: Queryable
  #isOpen = true

  constructor(db: Queryable) {
    this.#db = db
  }

  /** Whatever a driver takes besides text and values goes through. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as Queryable has it
  async query<Row extends Record<string, unknown>>(...parameters: [string, unknown[]?]): Promise<{ rows: Row[] }> {
    if (this.#isOpen) return this.#db.query<Row>(...parameters)
    throw new TrunklineError('A handler uses its connection after its transaction has ended.', {
      code: 'transaction_ended',
      hint: 'Await what the handler does, and return its promise.',
    })
  }

  close(): void {
    this.#isOpen = false
  }
}
