/** Failures in a row that open it. */
export const breakerFailuresMax = 3
/** First time it stays open, in milliseconds; doubles with every failed trial. */
const openFirstMs = 1_000
/** Longest time it stays open, in milliseconds. */
const openMaxMs = 30_000

export type BreakerState = 'closed' | 'open' | 'half-open'

/**
 * Keeps work from a server that fails: after three failures in a row nobody is sent there for a while, then one trial
 * (half-open), whose success closes it and whose failure doubles the while. Times are jittered, so that a fleet does not
 * try together.
 */
export class Breaker {
  readonly #now: () => number
  #failures = 0
  #openings = 0
  #openUntil = 0
  #isOnTrial = false

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  get state(): BreakerState {
    if (this.#failures < breakerFailuresMax) return 'closed'
    return this.#isOnTrial || this.#now() >= this.#openUntil ? 'half-open' : 'open'
  }

  /** True when work may be sent there now. */
  get isPassable(): boolean {
    return this.#failures < breakerFailuresMax || (!this.#isOnTrial && this.#now() >= this.#openUntil)
  }

  /** Work is sent there: when half-open it is the trial, and nobody else is let through until it has ended. */
  enter(): void {
    if (this.state === 'half-open') this.#isOnTrial = true
  }

  succeed(): void {
    this.#failures = 0
    this.#openings = 0
    this.#isOnTrial = false
  }

  fail(): void {
    const wasOpen = this.#failures >= breakerFailuresMax
    const wasTrial = this.#isOnTrial
    this.#failures += 1
    this.#isOnTrial = false
    // What was sent there before it opened tells nothing new when it fails, too.
    if (this.#failures < breakerFailuresMax || (wasOpen && !wasTrial)) return
    const ceiling = Math.min(openMaxMs, openFirstMs * 2 ** Math.min(this.#openings, 16))
    this.#openUntil = this.#now() + ceiling / 2 + (Math.random() * ceiling) / 2
    this.#openings += 1
  }

  /** The trial ended without telling anything, say because the caller gave up. */
  abandon(): void {
    this.#isOnTrial = false
  }
}
