import type { DeliveryError, DeliveryOutcome } from '../relay/index.ts'
import { toDeliveryError } from './by-key.ts'
import type { Deadline } from './deadline.ts'

/**
 * The outcomes of one call of a sink whose deliveries are confirmed in any order. One promise for all of them: a promise for each
 * was a tenth of what a record took.
 */
export class Outcomes {
  readonly deadline: Deadline
  readonly #outcomes: (DeliveryOutcome | 'open')[]
  readonly #all = Promise.withResolvers<void>()
  #openCount: number

  constructor(count: number, deadline: Deadline) {
    this.deadline = deadline
    this.#outcomes = Array.from({ length: count }, () => 'open')
    this.#openCount = count
    if (count === 0) this.#all.resolve()
  }

  /** The first word on a delivery counts. */
  settle(index: number, outcome: DeliveryError | undefined): void {
    if (this.#outcomes[index] !== 'open') return
    this.#outcomes[index] = outcome
    this.#openCount -= 1
    if (this.#openCount === 0) this.#all.resolve()
  }

  /** Resolves when all are settled or the time is over; what is open then has failed by that. */
  async settled(): Promise<DeliveryOutcome[]> {
    const late = await this.deadline.race(this.#all.promise).then(() => undefined, toDeliveryError)
    return this.#outcomes.map((outcome) => (outcome === 'open' ? late : outcome))
  }
}
