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
  #pinnedTimeline: number | undefined
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

  /** `timeline`: that of a write which was told to have committed, and of which no more is known. */
  pin(timeline?: number): void {
    this.#isPinned = true
    this.#pinnedTimeline = earlierOf(this.#pinnedTimeline, timeline)
  }

  /** The timeline of a write that a later one may lack; undefined: there is none such. */
  get pinnedTimeline(): number | undefined {
    return this.#pinnedTimeline
  }

  /** What was written may be lost, and that was told: it goes on from what there is. */
  goOn(): void {
    this.#isPinned = false
    this.#pinnedTimeline = undefined
  }

  /** A position of the primary covers all that was written before. */
  unpin(position: Position): void {
    this.#isPinned = false
    this.#pinnedTimeline = undefined
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

/** Of the earlier write more can have been lost. */
function earlierOf(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return Math.min(one, other)
}
