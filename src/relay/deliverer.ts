import { backoffMs, messageOf, pause } from '../core/index.ts'
import { storedChange } from '../log/index.ts'
import { isConnectionFailure } from '../postgres/index.ts'
import { attempt, storableText } from './attempt.ts'
import { retryDelayMs } from './backoff.ts'
import type { HeldKeys } from './held-keys.ts'
import { MarkQueue } from './mark-queue.ts'
import type { Outage } from './outage.ts'
import type { CheckedRelayOptions } from './relay-options.ts'
import type { NewFailure, RelayStore } from './relay-store.ts'
import type { Delivery, DeliveryError } from './sink.ts'
import type { Entry } from './slot-share.ts'

/** What became of a delivery that was not confirmed. */
export interface FailedAttempt {
  readonly delivery: Delivery
  readonly error: DeliveryError
  readonly attempts: number
  readonly isDead: boolean
  /** Milliseconds until the next attempt. */
  readonly delayMs: number
}

export interface DelivererOptions {
  readonly relay: CheckedRelayOptions
  readonly store: () => RelayStore
  readonly held: HeldKeys
  readonly outage: Outage
  /** True while the lease of this process is good. */
  readonly isOwner: () => boolean
  /** Aborted when calls in flight should give up: the lease is lost, or the relay stops. */
  readonly signal: () => AbortSignal
  readonly isStopping: () => boolean
  readonly onDelivered: (delivery: Delivery) => void
  readonly onFailed: (failed: FailedAttempt) => void
  readonly onOutage: (error: DeliveryError) => void
  /** The receiver is reached again after an outage. */
  readonly onRecovered: () => void
  /** Entries are done: confirmed, or stored. */
  readonly onDone: (entries: readonly Entry[]) => void
  /** Something was stored to be attempted again. */
  readonly onStored: () => void
  /** The database says that a slot is no longer ours. */
  readonly onLost: () => void
  /** The database refuses to store failures, three times by now: it goes on trying, and their lane waits. */
  readonly onStoreFailed: (error: unknown) => void
}

/**
 * Delivers batches of a lane: attempts what may be attempted, and stores what failed and what waits behind it before anything
 * of its key goes on.
 */
export class Deliverer {
  readonly #options: DelivererOptions
  /** Keys in calls at this moment. */
  readonly #inFlight = new Set<string>()
  readonly #marks: MarkQueue

  constructor(options: DelivererOptions) {
    this.#options = options
    this.#marks = new MarkQueue((entries) => this.#writeMarks(entries))
  }

  /** True while a delivery of the key is being attempted or stored. */
  isInFlight(holdKey: string): boolean {
    return this.#inFlight.has(holdKey)
  }

  /** Gives back what is to be attempted again, in its order. */
  async deliver(batch: readonly Entry[]): Promise<readonly Entry[]> {
    for (const { holdKey, share } of batch) {
      share.beginCall()
      if (holdKey !== undefined) this.#inFlight.add(holdKey)
    }
    try {
      return await this.#deliver(batch)
    } finally {
      for (const { holdKey, share } of batch) {
        if (holdKey !== undefined) this.#inFlight.delete(holdKey)
        share.endCall()
      }
    }
  }

  async #deliver(batch: readonly Entry[]): Promise<readonly Entry[]> {
    const { held, relay, isOwner, signal } = this.#options
    if (
      held.size > 0 ||
      batch.some(({ refusal, isSuspect, isAlone }) => refusal !== undefined || isSuspect || isAlone)
    ) {
      const ready = await this.#prepare(batch)
      if (ready === undefined) return batch
      if (ready !== batch) return ready
    }
    // The last look before the call: after a pause of the whole process somebody else may deliver these keys.
    if (!isOwner()) return batch
    const startedAt = performance.now()
    for (const entry of batch) if (entry.attemptedAt === 0) entry.attemptedAt = startedAt
    const outcomes = await attempt(
      relay.sink,
      batch.map(({ delivery }) => delivery),
      signal(),
    )
    return this.#settle(batch, outcomes)
  }

  /**
   * Stores what must not be attempted now, and counts attempts that may kill. Gives the batch when it may be attempted as it
   * is, what is left of it when something was stored, and undefined when it must wait.
   */
  async #prepare(batch: readonly Entry[]): Promise<readonly Entry[] | undefined> {
    const { held, relay, onFailed } = this.#options
    const stored: NewFailure[] = []
    const told: FailedAttempt[] = []
    const kept: Entry[] = []
    const gone: Entry[] = []
    for (const entry of batch) {
      if (held.has(entry.holdKey)) stored.push(waiting(entry))
      else if (entry.refusal === undefined) {
        kept.push(entry)
        continue
      } else {
        const holds = relay.onDeadLetter === 'hold'
        const attempts = Math.max(1, entry.deadAttempts)
        const one = { delivery: entry.delivery, error: entry.refusal, attempts, isDead: true, delayMs: 0 }
        stored.push(failure(entry, one, holds))
        told.push(one)
        if (holds) held.hold(entry.holdKey, entry.share.slot)
      }
      gone.push(entry)
    }
    if (gone.length > 0) {
      await this.#store(gone, stored)
      for (const one of told) onFailed(one)
      return kept
    }
    if (!batch.some(({ isSuspect, isAlone }) => isSuspect || isAlone)) return batch
    return (await this.#mark(batch)) ? batch : undefined
  }

  async #mark(batch: readonly Entry[]): Promise<boolean> {
    try {
      // One that is attempted alone has nothing beside it to go with.
      const isOurs = await (batch.every(({ isAlone }) => isAlone) ? this.#writeMarks(batch) : this.#marks.add(batch))
      if (!isOurs) this.#options.onLost()
      return isOurs
    } catch (error) {
      this.#options.relay.logger.debug(`Counting attempts failed: ${messageOf(error)}`)
      await pause(backoffMs(1))
      return false
    }
  }

  async #writeMarks(entries: readonly Entry[]): Promise<boolean> {
    return this.#options.store().mark(
      entries.map(({ share }) => share.slot),
      entries.map(({ change }) => change.id),
      entries.map(({ change }) => change.xid),
      entries.every(({ isAlone }) => isAlone),
    )
  }

  async #settle(batch: readonly Entry[], outcomes: readonly (DeliveryError | undefined)[]): Promise<readonly Entry[]> {
    const { outage, onDelivered, onFailed, onOutage, onRecovered, onDone } = this.#options
    const confirmed: Entry[] = []
    const failed: { entry: Entry; attempt: FailedAttempt }[] = []
    const again: Entry[] = []
    for (const [index, entry] of batch.entries()) {
      const error = outcomes[index]
      if (error === undefined) confirmed.push(entry)
      else if (error.code === 'not_attempted') again.push(entry)
      else if (outage.isCounted(error, entry.unreachedAt)) failed.push({ entry, attempt: this.#judge(entry, error) })
      else {
        entry.unreachedAt = performance.now()
        again.push(entry)
        if (outage.fail(error)) onOutage(error)
      }
    }
    if (confirmed.length > 0) {
      if (outage.succeed()) onRecovered()
      for (const { delivery } of confirmed) onDelivered(delivery)
      onDone(confirmed)
    }
    if (failed.length > 0) {
      await this.#storeFailed(failed, again)
      for (const { attempt: one } of failed) onFailed(one)
    } else if (again.length > 0 && confirmed.length === 0 && outage.waitMs === 0) {
      // A sink that attempts nothing, and says no more, is not asked at once again.
      await pause(backoffMs(1))
    }
    return again
  }

  #judge(entry: Entry, error: DeliveryError): FailedAttempt {
    const { relay } = this.#options
    const attempts = entry.deadAttempts + 1
    const isDead = !error.retryable || attempts >= relay.attemptsMax
    return {
      delivery: entry.delivery,
      error,
      attempts,
      isDead,
      delayMs: isDead ? 0 : retryDelayMs(relay, attempts, error),
    }
  }

  /** Stores failures together with what of the batch waits behind them. */
  async #storeFailed(failed: readonly { entry: Entry; attempt: FailedAttempt }[], again: Entry[]): Promise<void> {
    const { held, relay } = this.#options
    const holds = relay.onDeadLetter === 'hold'
    for (const { entry, attempt: one } of failed) {
      if (!one.isDead || holds) held.hold(entry.holdKey, entry.share.slot)
    }
    const behind = again.filter((entry) => held.has(entry.holdKey))
    const left = again.filter((entry) => !behind.includes(entry))
    again.splice(0, again.length, ...left)
    const entries = [...failed.map(({ entry }) => entry), ...behind]
    const failures = [
      ...failed.map(({ entry, attempt: one }) => failure(entry, one, holds && one.isDead)),
      ...behind.map(waiting),
    ]
    await this.#store(entries, failures)
  }

  /** Goes on trying while this process may own the slots: nothing of these keys may go on before it is stored. */
  async #store(entries: readonly Entry[], failures: readonly NewFailure[]): Promise<void> {
    const { held, relay, store, onDone, onStored, onLost, onStoreFailed, isStopping } = this.#options
    for (const { holdKey } of entries) held.beginStoring(holdKey)
    try {
      for (let tries = 1; entries.some(({ share }) => !share.isGone); tries += 1) {
        try {
          if (!(await store().storeFailures(failures))) return onLost()
          for (const { slot, state, holds } of failures) if (state === 'retry' || holds) held.count(slot, 1)
          onDone(entries)
          return onStored()
        } catch (error) {
          const level = tries === 3 ? 'warn' : 'debug'
          relay.logger[level](`Storing failed deliveries does not work, trying again: ${messageOf(error)}`)
          if (tries === 3 && !isConnectionFailure(error)) onStoreFailed(error)
          if (isStopping()) return
          await pause(backoffMs(tries))
        }
      }
    } finally {
      for (const { holdKey } of entries) held.endStoring(holdKey)
    }
  }
}

function base({
  change,
  delivery,
  share,
}: Entry): Pick<NewFailure, 'slot' | 'topic' | 'key' | 'message_id' | 'log_id' | 'xid' | 'change'> {
  return {
    slot: share.slot,
    topic: change.topic,
    key: change.key,
    message_id: delivery.messageId,
    log_id: change.id,
    xid: change.xid,
    change: storedChange(change),
  }
}

function waiting(entry: Entry): NewFailure {
  const nothing = { error_code: null, error_message: null, since_ms: 0, delay_ms: 0, attempts: 0 }
  return { ...base(entry), ...nothing, state: 'retry', holds: false }
}

function failure(entry: Entry, one: FailedAttempt, holds: boolean): NewFailure {
  return {
    ...base(entry),
    state: one.isDead ? 'dead' : 'retry',
    holds,
    attempts: one.attempts,
    delay_ms: one.delayMs,
    since_ms: entry.attemptedAt === 0 ? 0 : Math.round(performance.now() - entry.attemptedAt),
    error_code: storableText(one.error.code),
    error_message: storableText(one.error.message),
  }
}
