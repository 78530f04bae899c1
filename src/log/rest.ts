import { Pause } from '../core/index.ts'
import type { Session } from './session.ts'
import type { WakeUp } from './wake-up.ts'

/** First pause between two looks for writers that may have skipped their NOTIFY, in milliseconds; doubles. */
const awaitWritersMs = 5
/** Longest such pause, in milliseconds: the delay of a long transaction that nobody announced. */
const awaitWritersMaxMs = 500
/** Under load, rest this many times as long as a round takes: a reader takes a ninth of a core at most. */
const restShare = 8
/** But a commit is seen at latest after a round that just missed it, the rest, and a round: all of it, in milliseconds. */
const behindMaxMs = 400

/** A sleep that a commit ended within the time of so many rounds was not worth it: it costs two, and a NOTIFY, which wakes all listeners. */
const shortSleepRounds = 3
/** After so many of them in a row the table is busy, and its reader stays awake between commits, */
const shortSleepsMax = 3
/** until nothing has changed for this long, in milliseconds. */
const calmMs = 1_000

/** How long to rest when rounds take so long, on a busy server or with much to read, in milliseconds. */
function restMs(roundMs: number, minIntervalMs: number): number {
  const restMaxMs = Math.max(roundMs, behindMaxMs - 2 * roundMs)
  return Math.max(minIntervalMs, Math.min(restMaxMs, restShare * roundMs))
}

export interface RestOptions {
  readonly session: Session
  readonly wakeUp: WakeUp
  readonly pollIntervalMs: number
  readonly minIntervalMs: number
}

/** What decides how long to rest after a round. */
export interface RestAfter {
  /** The round found something, or there is something new to follow: stay awake. */
  readonly hasChanged: boolean
  readonly roundMs: number
  /** Notifications arrive. */
  readonly isListening: boolean
  readonly lockClass: number
  /** Topics whose writers can wake us. */
  readonly wakeKeys: readonly number[]
}

/**
 * When to look at the log next: soon after a look that found something, and awake, so that writers need not notify; else
 * asleep until somebody notifies, asks, or the poll interval is over.
 */
export class Rest {
  readonly #options: RestOptions
  readonly #pause = new Pause()
  #isNotified = false
  #waitsForNotification = false
  #awaitMs = awaitWritersMs
  /** Of the round before, if that found something. */
  #lastRoundMs = 0
  /** Since when it has held the locks, by performance.now(). */
  #asleepSince = 0
  /** Short sleeps in a row. */
  #shortSleeps = 0
  /** When a round last found something, by performance.now(). */
  #changedAt = 0

  constructor(options: RestOptions) {
    this.#options = options
  }

  /** True while it waits for nothing but a notification, the interval, or a demand. */
  get isAsleep(): boolean {
    const { wakeUp } = this.#options
    return this.#waitsForNotification && wakeUp.isAsleep && wakeUp.awaitedWriters === 0
  }

  /** Somebody committed. Awake, we look anyway. */
  notify(): void {
    this.#isNotified = true
    if (this.#waitsForNotification) this.#pause.wake()
  }

  /** Somebody wants a look now. */
  demand(): void {
    this.#pause.wake()
  }

  /** Notifications may have been lost: look now. */
  miss(): void {
    this.#isNotified = true
    this.#pause.wake()
  }

  /** A round begins: it sees what the notifications before it spoke of. True: there were some. */
  beginRound(): boolean {
    const isNotified = this.#isNotified
    this.#isNotified = false
    return isNotified
  }

  /** After a failure. */
  async retryAfter(ms: number): Promise<void> {
    await this.#pause.wait(ms)
  }

  /** Resolves when it makes sense to look again. */
  async after(round: RestAfter): Promise<void> {
    const { session, wakeUp, minIntervalMs } = this.#options
    // One heavy round is no load: the next commit must not wait for it.
    const loadMs = Math.min(round.roundMs, this.#lastRoundMs)
    const staysAwake = round.hasChanged || this.#isBusy()
    this.#lastRoundMs = staysAwake ? round.roundMs : 0
    if (round.hasChanged) this.#noteChange(round.roundMs)
    if (staysAwake) {
      await wakeUp.wakeUp(session, round.lockClass)
      await this.#pause.wait(restMs(loadMs, minIntervalMs))
    } else if (!round.isListening || round.wakeKeys.length === 0) {
      await this.#sleep()
    } else if (!wakeUp.isAsleep) {
      await this.#fallAsleep(round)
    } else if (wakeUp.awaitedWriters > 0) {
      await this.#awaitWriters()
    } else {
      await this.#sleep()
    }
  }

  #noteChange(roundMs: number): void {
    this.#changedAt = performance.now()
    if (!this.#options.wakeUp.isAsleep) return
    const sleptMs = this.#changedAt - roundMs - this.#asleepSince
    this.#shortSleeps = sleptMs < shortSleepRounds * roundMs ? this.#shortSleeps + 1 : 0
  }

  /**
   * Commits come so fast that each would have to wake us. Of many readers one is always about to sleep: writers would notify
   * in every transaction, and each of them would wake all readers.
   */
  #isBusy(): boolean {
    return (
      !this.#options.wakeUp.isAsleep &&
      this.#shortSleeps >= shortSleepsMax &&
      performance.now() - this.#changedAt < calmMs
    )
  }

  /** Takes the locks; the look that makes sure comes next, so it does not wait. */
  async #fallAsleep({ lockClass, wakeKeys }: RestAfter): Promise<void> {
    const { session, wakeUp } = this.#options
    this.#awaitMs = awaitWritersMs
    if (!(await wakeUp.fallAsleep(session, lockClass, wakeKeys))) await this.#pause.wait(1)
    this.#asleepSince = performance.now()
  }

  /** One of the writers that may have skipped their NOTIFY ended, or it is time to look for ourselves. */
  async #awaitWriters(): Promise<void> {
    const { session, wakeUp, pollIntervalMs } = this.#options
    const longestMs = Math.min(awaitWritersMaxMs, pollIntervalMs)
    for (let waitedMs = 0; waitedMs < pollIntervalMs;) {
      if (this.#isNotified || (await this.#waitForNotification(this.#awaitMs))) return
      waitedMs += this.#awaitMs
      this.#awaitMs = Math.min(2 * this.#awaitMs, longestMs)
      const before = wakeUp.awaitedWriters
      await wakeUp.checkWriters(session)
      if (wakeUp.awaitedWriters < before) return
    }
  }

  async #sleep(): Promise<void> {
    if (this.#isNotified) return
    // A fleet must not poll in step.
    await this.#waitForNotification(this.#options.pollIntervalMs * (0.9 + 0.2 * Math.random()))
  }

  async #waitForNotification(ms: number): Promise<boolean> {
    this.#waitsForNotification = true
    const isWoken = await this.#pause.wait(ms)
    this.#waitsForNotification = false
    return isWoken
  }
}
