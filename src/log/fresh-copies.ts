import { setTimeout } from 'node:timers/promises'
import type pg from 'pg'
import { backoffMs, type Logger, messageOf, TrunklineError } from '../core/index.ts'
import { isTooLarge, toTrunklineError } from '../postgres/index.ts'
import { isOtherLog } from './feed-errors.ts'
import type { TableSubscription } from './table-subscription.ts'

/** The part of `staleAfterMs` for which a follower that begins anew, or whose table is locked, lets the others wait. */
const copyPatience = 0.5

/** Least pause between two looks for stale followers, in milliseconds. */
const staleCheckMinMs = 50

/** Steps that fail right after a copy, in a row, before nobody waits for it any more. */
const stepFailuresMax = 4

export interface FreshCopiesOptions {
  readonly pool: () => pg.Pool
  /** What the log of the copies has to be; undefined while it is not known. */
  readonly identity: () => string | undefined
  readonly staleAfterMs: number
  /** Why the last round failed, if one did. */
  readonly lastError: () => Error | undefined
  readonly logger: Logger
  /** The subscription steps no further with what is prepared for it. */
  readonly onBegin: (subscription: TableSubscription) => void
  /** A copy waits for the next round to bring it level. */
  readonly onCopied: () => void
  /** A copy is of another log than the one that is read. */
  readonly onOtherLog: () => void
}

/** Followers that cannot go on from where they are: fresh copies in the background, and who is told that it is stale. */
export class FreshCopies {
  readonly #options: FreshCopiesOptions
  #stopping = new AbortController()
  #watch: NodeJS.Timeout | undefined

  constructor(options: FreshCopiesOptions) {
    this.#options = options
  }

  /** For as long as one step of the others may be held back. */
  get patienceMs(): number {
    return this.#options.staleAfterMs * copyPatience
  }

  /** Watches how old the followers are. */
  start(subscriptions: Iterable<TableSubscription>): void {
    this.#stopping = new AbortController()
    this.#watchAges(subscriptions)
  }

  /** No copy is begun or tried again; wait for those under way. */
  stop(): void {
    this.#stopping.abort()
    clearTimeout(this.#watch)
  }

  /** Its rows count no more as level; what it shows stays until the copy is. With a cause it is stale until then. */
  begin(subscription: TableSubscription, cause?: Error): void {
    subscription.cursor = undefined
    this.#options.onBegin(subscription)
    if (cause !== undefined) this.markStale(subscription, cause)
    if (subscription.copying !== undefined) return
    const attempt = Promise.withResolvers<void>()
    subscription.attempt = attempt.promise
    subscription.copying = this.#copyUntilDone(subscription, attempt.resolve).finally(() => {
      subscription.copying = undefined
      attempt.resolve()
    })
  }

  /**
   * Its step failed. DDL explains that, and a copy of the table as it is now mends it; not so when the first step after the copy
   * fails again and again: it is then tried with growing pauses, and nobody waits for it.
   */
  beginAfter(subscription: TableSubscription, error: unknown): void {
    subscription.stepFailures = subscription.hasStagedCopy ? subscription.stepFailures + 1 : 1
    this.begin(subscription)
    if (subscription.stepFailures < stepFailuresMax) return
    subscription.fault = toTrunklineError(error, `Following ${subscription.follower.selection.table}`)
    this.giveUp(subscription, subscription.fault)
  }

  /** Waits while one of them begins anew (F1 of the feed). Who takes too long for the others is stale. */
  async untilCopied(subscriptions: Iterable<TableSubscription>): Promise<void> {
    const { signal } = this.#stopping
    for (const subscription of subscriptions) {
      if (!isHolding(subscription)) continue
      const patience = setTimeout(this.patienceMs, undefined, { signal, ref: false })
      await Promise.race([subscription.attempt, patience]).catch(() => undefined)
      if (!isHolding(subscription)) continue
      this.giveUp(subscription, new TrunklineError('A fresh copy takes long.', { code: 'copying', retryable: true }))
    }
  }

  /** The others go on without it. */
  giveUp(subscription: TableSubscription, cause: Error): void {
    subscription.isGivenUp = true
    this.markStale(subscription, cause)
  }

  markStale(subscription: TableSubscription, cause: Error): void {
    if (subscription.isStale) return
    subscription.isStale = true
    subscription.follower.stale(cause)
  }

  /** Again when the next of them may be stale: an idle fleet is not woken for nothing. */
  #watchAges(subscriptions: Iterable<TableSubscription>): void {
    const dueMs = this.#tellStale(subscriptions)
    this.#watch = globalThis.setTimeout(() => this.#watchAges(subscriptions), dueMs)
  }

  /** Tells those that no round has reached for too long, and why. Returns in how many milliseconds there may be another. */
  #tellStale(subscriptions: Iterable<TableSubscription>): number {
    const { staleAfterMs, lastError } = this.#options
    let dueMs = staleAfterMs
    for (const subscription of subscriptions) {
      const ageMs = performance.now() - subscription.lookedAt
      if (subscription.lookedAt === 0 || subscription.isStale) continue
      if (ageMs <= staleAfterMs) {
        dueMs = Math.min(dueMs, staleAfterMs - ageMs)
        continue
      }
      const stalled = new TrunklineError(`No answer from the server for ${Math.round(ageMs)} ms.`, {
        code: 'stalled',
        retryable: true,
      })
      this.markStale(subscription, lastError() ?? stalled)
    }
    return Math.max(staleCheckMinMs, dueMs)
  }

  async #copyUntilDone(subscription: TableSubscription, onFailure: () => void): Promise<void> {
    const { signal } = this.#stopping
    const { pool, identity, logger, onCopied, onOtherLog } = this.#options
    if (subscription.stepFailures > 1)
      await setTimeout(backoffMs(subscription.stepFailures), undefined, { signal }).catch(() => undefined)
    while (!signal.aborted && !subscription.isClosed) {
      try {
        await subscription.copy(pool(), identity(), false)
        onCopied()
        return
      } catch (error) {
        subscription.failures += 1
        const cause = error instanceof Error ? error : new Error(messageOf(error))
        if (subscription.failures === 1) logger.warn(`${subscription.follower.selection.table}: ${cause.message}`)
        this.giveUp(subscription, cause)
        onFailure()
        // trunkline was installed anew while its log was read, perhaps; only a connect asks what it is.
        if (isOtherLog(cause)) onOtherLog()
        // Each attempt makes the server send what is too large.
        const limits = isTooLarge(cause) ? { firstMs: 10_000, maxMs: 60_000 } : {}
        await setTimeout(backoffMs(subscription.failures, limits), undefined, { signal }).catch(() => undefined)
      }
    }
  }
}

/** It begins anew, and nothing has gone wrong with that so far. */
export function isHolding({ cursor, copying, isGivenUp, isClosed }: TableSubscription): boolean {
  return cursor === undefined && copying !== undefined && !isGivenUp && !isClosed
}
