import { backoffMs, messageOf, Pause } from '../core/index.ts'
import type { Logger } from '../core/index.ts'
import type { RelayStore, TakenSlot } from './relay-store.ts'

/** Longest pause between two heartbeats, in milliseconds. */
const beatIntervalMaxMs = 1_000
/** Part of the lease after which this process stops on its own account, before the others may take over. */
const ownShare = 0.8

export interface MembershipOptions {
  readonly leaseMs: number
  readonly logger: Logger
  /** Registers this process anew, under a new owner. */
  readonly join: () => Promise<RelayStore>
  /** The relay is level, or has moved since it was asked last. */
  readonly moves: () => boolean
  /** Slots that this process has, in their order. */
  readonly slots: () => readonly number[]
  readonly onTaken: (slots: readonly TakenSlot[]) => Promise<void>
  /** False: slots must not be taken now, what was in flight of them has not ended. */
  readonly canTake: () => boolean
  /** Somebody else may have these slots. */
  readonly onLost: (slots: readonly number[]) => void
  /** Ends what is in flight of the slots, saves their places and gives them back. */
  readonly giveBack: (slots: readonly number[]) => Promise<void>
  /** The lease is about to end: calls in flight should give up. */
  readonly onExpired: () => void
  readonly onError: (error: unknown) => void
}

/**
 * Keeps this process a member of its relay and the slots evenly shared: renews the lease, takes what nobody owns, gives back
 * what is too much.
 *
 * The lease ends by the server's clock, counted from when it got the heartbeat; here it counts from before the heartbeat was
 * sent, and less: so this process stops before another may begin, and a process that was paused finds its lease over.
 */
export class Membership {
  readonly #options: MembershipOptions
  readonly #pause = new Pause()
  #store: RelayStore | undefined
  /** By performance.now() and Date.now(): one of them may stand still while the machine sleeps. */
  #goodUntil: readonly [number, number] = [0, 0]
  #expiry: NodeJS.Timeout | undefined
  #isStopping = false
  #isLost = false
  #loop: Promise<void> | undefined
  #giving: Promise<void> | undefined

  constructor(options: MembershipOptions) {
    this.#options = options
  }

  get store(): RelayStore {
    if (this.#store === undefined) throw new Error('The relay has not joined.')
    return this.#store
  }

  /** True while no other process can have taken over. */
  get isGood(): boolean {
    return performance.now() < this.#goodUntil[0] && Date.now() < this.#goodUntil[1]
  }

  async start(): Promise<void> {
    this.#store = await this.#options.join()
    await this.#beat()
    this.#loop = this.#run()
  }

  /** Ends the heartbeat; the lease stays until `leave`. */
  async stop(): Promise<void> {
    this.#isStopping = true
    this.#pause.wake()
    await this.#loop
    await this.#giving?.catch(() => undefined)
    clearTimeout(this.#expiry)
  }

  /** The database says that something is no longer ours: nothing is delivered until a heartbeat has cleared it up. */
  doubt(): void {
    this.#goodUntil = [0, 0]
    this.#pause.wake()
  }

  /** Looks at the shares now. */
  wake(): void {
    this.#pause.wake()
  }

  async #run(): Promise<void> {
    const { leaseMs, logger, onError } = this.#options
    const intervalMs = Math.min(beatIntervalMaxMs, leaseMs / 5)
    for (let failures = 0; !this.#isStopping;) {
      await this.#pause.wait(failures === 0 ? intervalMs : Math.min(intervalMs, backoffMs(failures)))
      if (this.#hasStopped()) return
      try {
        await this.#beat()
        failures = 0
      } catch (error) {
        failures += 1
        logger.debug(`A heartbeat of the relay failed: ${messageOf(error)}`)
        if (failures === 3) onError(error)
      }
    }
  }

  #hasStopped(): boolean {
    return this.#isStopping
  }

  async #beat(): Promise<void> {
    const { leaseMs, slots, onLost, moves } = this.#options
    if (this.#isLost) {
      this.#store = await this.#options.join()
      this.#isLost = false
    }
    const [sentAt, sentAtWall] = [performance.now(), Date.now()]
    const beat = await this.store.beat(leaseMs, moves())
    if (!beat.alive) {
      // Under its old owner this process can do nothing any more.
      this.#goodUntil = [0, 0]
      this.#isLost = true
      onLost(slots())
      this.#pause.wake()
      return
    }
    const own = new Set(slots())
    const owned = new Set(beat.owned)
    const lost = [...own].filter((slot) => !owned.has(slot))
    if (lost.length > 0) onLost(lost)
    const goodMs = leaseMs * ownShare
    this.#goodUntil = [sentAt + goodMs, sentAtWall + goodMs]
    this.#expireAfter(Math.max(0, sentAt + goodMs - performance.now()))
    await this.#balance(beat.share, beat.owned, beat.vacant)
  }

  async #balance(share: number, owned: readonly number[], vacant: number): Promise<void> {
    const { slots, canTake, onTaken, giveBack } = this.#options
    if (!canTake()) return
    const own = new Set(slots())
    const unknown = owned.filter((slot) => !own.has(slot))
    if (unknown.length > 0 && this.#giving === undefined) await onTaken(await this.store.owned(unknown))
    if (owned.length > share && this.#giving === undefined) {
      this.#giving = giveBack(owned.slice(share)).finally(() => {
        this.#giving = undefined
      })
      this.#giving.catch((error: unknown) => this.#options.onError(error))
    } else if (owned.length < share && vacant > 0) {
      const taken = await this.store.take(share - owned.length)
      if (taken.length > 0) await onTaken(taken)
    }
  }

  #expireAfter(ms: number): void {
    clearTimeout(this.#expiry)
    this.#expiry = setTimeout(() => {
      if (!this.isGood) this.#options.onExpired()
    }, ms + 1)
    this.#expiry.unref()
  }
}
