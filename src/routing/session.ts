import { withTimeout } from '../core/index.ts'
import { formatToken, laterOf, parseToken, type Position } from './token.ts'

/** How long the next read or answer waits for positions, in milliseconds; each of them is bounded by less. */
const settleMsMax = 10_000

/**
 * What one request or job has written and seen: the position that its reads must not fall behind. Its reads see its own
 * writes, and never go back in time.
 */
export class RoutingSession {
  #floor: Position | undefined
  #isPinned = false
  #pending: Promise<unknown> | undefined

  /** @throws InvalidInputError `invalid_token`. */
  constructor(token?: string) {
    if (token !== undefined) this.#floor = parseToken(token)
  }

  /** What a read must have, to be given to whoever goes on: another request, a job, another service. */
  get token(): string | undefined {
    return this.#floor === undefined ? undefined : formatToken(this.#floor)
  }

  get floor(): Position | undefined {
    return this.#floor
  }

  /** A write committed whose position could not be asked for: only the primary is known to have it. */
  get isPinned(): boolean {
    return this.#isPinned
  }

  /** @throws InvalidInputError `invalid_token`. */
  raiseTo(token: string): void {
    this.raise(parseToken(token))
  }

  raise(position: Position): void {
    this.#floor = laterOf(this.#floor, position)
  }

  pin(): void {
    this.#isPinned = true
  }

  /** A position of the primary covers all that was written before. */
  unpin(position: Position): void {
    this.#isPinned = false
    this.raise(position)
  }

  /** What it had is lost: it goes on from another place. */
  goOnFrom(lost: Position, begin: Position): void {
    if (this.#floor === lost) this.#floor = begin
  }

  /** A position that is being asked for: the next read waits for the answer. */
  await(pending: Promise<unknown>): void {
    const all = Promise.all([this.#pending, pending]).catch(() => undefined)
    this.#pending = all
    void all.then(() => {
      if (this.#pending === all) this.#pending = undefined
    })
  }

  /** Resolves when the floor holds all that has ended; after `maxMs` (ten seconds) in any case, and then it is pinned. */
  async settled(maxMs: number = settleMsMax): Promise<void> {
    const until = performance.now() + maxMs
    while (this.#pending !== undefined) {
      const leftMs = until - performance.now()
      if (leftMs <= 0) {
        this.pin()
        return
      }
      const pending = this.#pending
      await withTimeout(pending, leftMs, () => new Error('not settled')).catch(() => undefined)
    }
  }
}
