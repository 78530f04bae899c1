import { backoffMs, messageOf, Pause, pause } from '../core/index.ts'
import { restoredChange } from '../log/index.ts'
import { attempt, storableText } from './attempt.ts'
import { retryDelayMs } from './backoff.ts'
import type { Deliverer, DelivererOptions, FailedAttempt } from './deliverer.ts'
import { holdKeyOf } from './keys.ts'
import { bareDelivery, notEncoded, processDied } from './refusals.ts'
import type { AttemptFailure, BegunAttempt, DueFailure } from './relay-store.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from './sink.ts'
import type { SlotShare } from './slot-share.ts'

/** Longest pause between two looks for what is due, in milliseconds: a redriven dead letter waits that long. */
const lookIntervalMs = 1_000
/** How often what is held here is compared with the database, in milliseconds; */
const compareIntervalMs = 2_000
/** and so many times as long as that took. */
const comparePart = 20

export interface RetriesOptions extends Omit<DelivererOptions, 'onDone' | 'onLost' | 'onStored' | 'onStoreFailed'> {
  readonly deliverer: Deliverer
  readonly share: (slot: number) => SlotShare | undefined
  readonly slots: () => readonly number[]
}

/** One stored delivery that is attempted now. */
interface Begun {
  readonly row: BegunAttempt
  readonly delivery: Delivery | undefined
  readonly refusal: DeliveryError | undefined
}

/**
 * Attempts stored deliveries again when they are due, the first of each key and then what waits behind it. Apart from the
 * lanes, so that receivers that fail slowly hold up nobody else.
 */
export class Retries {
  readonly #options: RetriesOptions
  readonly #pause = new Pause()
  readonly #busy = new Map<string, Promise<void>>()
  /** When a stored delivery failed last because the receiver was out of reach, by performance.now(). */
  readonly #unreachedAt = new Map<string, number>()
  #isSuspended = false
  #hasWaited = false
  /** By performance.now(). */
  #compareAt = 0
  #loop: Promise<void> | undefined

  constructor(options: RetriesOptions) {
    this.#options = options
  }

  start(): void {
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#pause.wake()
    await this.#loop
    await Promise.all(this.#busy.values())
  }

  /** Something may be due. */
  wake(): void {
    this.#pause.wake()
  }

  /** Runs an action while no stored delivery is attempted. */
  async suspended<Result>(action: () => Promise<Result>): Promise<Result> {
    this.#isSuspended = true
    try {
      await Promise.all(this.#busy.values())
      return await action()
    } finally {
      this.#isSuspended = false
      this.wake()
    }
  }

  async #run(): Promise<void> {
    const { isStopping, relay } = this.#options
    for (let failures = 0; !isStopping();) {
      let waitMs = lookIntervalMs
      try {
        waitMs = await this.#look()
        failures = 0
      } catch (error) {
        failures += 1
        waitMs = backoffMs(failures)
        relay.logger.debug(`Looking for deliveries to attempt again failed: ${messageOf(error)}`)
      }
      if (!isStopping()) await this.#pause.wait(waitMs)
    }
  }

  /** Begins what is due, and tells when to look next. */
  async #look(): Promise<number> {
    const { relay, store, isOwner, outage } = this.#options
    if (this.#isSuspended || !isOwner()) return 20
    // As a lane: after it has waited for the receiver once it has its turn.
    const outageMs = this.#hasWaited ? 0 : outage.waitMs
    this.#hasWaited = outageMs > 0
    if (outageMs > 0) return outageMs
    const isThorough = await this.#compare()
    const due = await store().due(relay.concurrency + this.#busy.size + 1, isThorough)
    let waitMs = lookIntervalMs
    for (const one of due) {
      if (this.#busy.has(one.id)) continue
      if (one.due_ms > 0) waitMs = Math.min(waitMs, one.due_ms)
      else if (this.#busy.size >= relay.concurrency || this.#isSuspended) return lookIntervalMs
      else if (!this.#begin(one)) waitMs = Math.min(waitMs, 20)
    }
    return waitMs
  }

  /** Dead letters that hold their keys may have been discarded: what they count for comes free. True: it has looked. */
  async #compare(): Promise<boolean> {
    const { store, held, slots } = this.#options
    const startedAt = performance.now()
    if (startedAt < this.#compareAt || (held.size === 0 && held.storedCount === 0)) return false
    const { version } = held
    const isCorrect = held.correct(version, await store().held(slots()))
    const now = performance.now()
    this.#compareAt = now + Math.max(isCorrect ? compareIntervalMs : 0, comparePart * (now - startedAt))
    return true
  }

  /** False: the key is in a call at this moment. */
  #begin(due: DueFailure): boolean {
    const { held, deliverer, share } = this.#options
    const own = share(due.slot)
    if (own?.isOpen !== true) return false
    const holdKey = holdKeyOf(due.topic, due.key)
    // From here on the lane stores what comes of the key; what it has in flight must have ended.
    held.hold(holdKey, due.slot)
    if (holdKey !== undefined && deliverer.isInFlight(holdKey)) return false
    own.beginCall()
    const run = this.#attempt(due)
      .catch(async (error: unknown) => {
        this.#options.relay.logger.debug(`Attempting a stored delivery failed: ${messageOf(error)}`)
        await pause(backoffMs(1))
      })
      .finally(() => {
        own.endCall()
        this.#busy.delete(due.id)
        this.wake()
      })
    this.#busy.set(due.id, run)
    return true
  }

  async #attempt(due: DueFailure): Promise<void> {
    const { relay, store, held, isOwner, signal } = this.#options
    if (due.attempts >= relay.attemptsMax) return this.#bury(due)
    const behind = due.attempts === 0 ? relay.batchSizeMax - 1 : 0
    const rows = await store().begin(due.id, behind, retryDelayMs(relay, due.attempts + 1))
    const begun = rows.map((row) => this.#toBegun(row))
    if (begun.length === 0) return
    const refused = begun.findIndex(({ refusal }) => refusal !== undefined)
    const sent = refused < 0 ? begun : begun.slice(0, refused)
    const deliveries = sent.flatMap(({ delivery }) => delivery ?? [])
    const outcomes: DeliveryOutcome[] = isOwner()
      ? deliveries.length === 0
        ? []
        : [...(await attempt(relay.sink, deliveries, signal()))]
      : deliveries.map(notAttempted)
    const isAllSent = outcomes.every((outcome) => outcome === undefined)
    for (const one of begun.slice(sent.length))
      outcomes.push(isAllSent ? (one.refusal ?? notAttempted()) : notAttempted())
    const { done, failures, told } = this.#judge(due, begun, outcomes)
    const left = await store().settle(due, done, failures)
    held.count(due.slot, -done.length - failures.filter(({ state, holds }) => state === 'dead' && !holds).length)
    if (left === 0) held.release(due.topic, due.key)
    for (const tell of told) tell()
  }

  #judge(
    due: DueFailure,
    begun: readonly Begun[],
    outcomes: readonly DeliveryOutcome[],
  ): { done: string[]; failures: AttemptFailure[]; told: (() => void)[] } {
    const { relay, outage, onDelivered, onFailed, onOutage, onRecovered } = this.#options
    const done: string[] = []
    const failures: AttemptFailure[] = []
    const told: (() => void)[] = []
    for (const [index, { row, delivery }] of begun.entries()) {
      const error = outcomes[index]
      if (error === undefined) {
        if (outage.succeed()) onRecovered()
        this.#unreachedAt.delete(row.id)
        done.push(row.id)
        if (delivery !== undefined) told.push(() => onDelivered(delivery))
      } else if (error.code === 'not_attempted') failures.push(uncounted(row, null, 0))
      else if (outage.isCounted(error, this.#unreachedAt.get(row.id) ?? 0)) {
        const isDead = !error.retryable || row.attempts >= relay.attemptsMax
        const delayMs = isDead ? 0 : retryDelayMs(relay, row.attempts, error)
        if (isDead) this.#unreachedAt.delete(row.id)
        else this.#unreachedAt.set(row.id, performance.now())
        failures.push({
          id: row.id,
          state: isDead ? 'dead' : 'retry',
          holds: isDead && relay.onDeadLetter === 'hold',
          attempts: row.attempts,
          delay_ms: delayMs,
          error_code: storableText(error.code),
          error_message: storableText(error.message),
        })
        const shown = delivery ?? bareDelivery(restoredChange(row.change))
        const failed: FailedAttempt = { delivery: shown, error, attempts: row.attempts, isDead, delayMs }
        told.push(() => onFailed(failed))
      } else {
        this.#unreachedAt.set(row.id, performance.now())
        if (outage.fail(error)) told.push(() => onOutage(error))
        failures.push(uncounted(row, error, Math.min(relay.retryFirstMs, lookIntervalMs)))
      }
    }
    return { done, failures, told }
  }

  /** Its last attempt was begun and nobody lived to tell how it ended. */
  async #bury(due: DueFailure): Promise<void> {
    const { relay, store, held, onFailed } = this.#options
    const error = processDied(due.attempts)
    const holds = relay.onDeadLetter === 'hold'
    const left = await store().settle(
      due,
      [],
      [
        {
          id: due.id,
          state: 'dead',
          holds,
          attempts: due.attempts,
          delay_ms: 0,
          error_code: error.code,
          error_message: error.message,
        },
      ],
    )
    if (!holds) held.count(due.slot, -1)
    if (left === 0) held.release(due.topic, due.key)
    const change = restoredChange((await store().changeOf(due.id)) ?? '{}')
    onFailed({ delivery: bareDelivery(change), error, attempts: due.attempts, isDead: true, delayMs: 0 })
  }

  #toBegun(row: BegunAttempt): Begun {
    try {
      const delivery = this.#options.relay.format.encode(restoredChange(row.change))
      if (delivery !== undefined) return { row, delivery, refusal: undefined }
      return { row, delivery: undefined, refusal: notEncoded(new Error('the format has none for it')) }
    } catch (error) {
      return { row, delivery: undefined, refusal: notEncoded(error) }
    }
  }
}

function uncounted(row: BegunAttempt, error: DeliveryError | null, delayMs: number): AttemptFailure {
  return {
    id: row.id,
    state: 'retry',
    holds: false,
    attempts: row.attempts - 1,
    delay_ms: delayMs,
    error_code: error === null ? null : storableText(error.code),
    error_message: error === null ? null : storableText(error.message),
  }
}

function notAttempted(): DeliveryError {
  return new DeliveryError('Not sent: an earlier one of its key failed, or the lease was lost.', {
    code: 'not_attempted',
    retryable: true,
  })
}
