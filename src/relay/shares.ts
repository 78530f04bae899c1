import { Pause } from '../core/index.ts'
import { earliestPosition, formatPosition, parsePosition, type Position } from '../log/index.ts'
import type { HeldKeys } from './held-keys.ts'
import type { RelayStore, TakenSlot } from './relay-store.ts'
import { type Entry, type Mark, type ReadPlace, SlotShare } from './slot-share.ts'

/** Bytes of bodies that are held in memory, about; one delivery more may be. */
const bytesMax = 64 * 1024 * 1024

export interface SharesOptions {
  readonly windowMax: number
  readonly failedMax: number
  readonly held: HeldKeys
  readonly store: () => RelayStore
  readonly onLost: () => void
  /** What was read may be of no worth: see `RelayRun`. Nothing is saved then. */
  readonly isInDoubt: () => boolean
}

/** Where a reader has to begin, and the slots that it then reads for. */
export interface ReadStart {
  readonly from: string
  readonly read: Position | undefined
  readonly shares: readonly SlotShare[]
}

/** The slots of this process, what is under way in them, and their checkpoints. */
export class Shares {
  readonly #options: SharesOptions
  readonly #shares = new Map<number, SlotShare>()
  readonly #room = new Pause()
  /** How far the reader is: a position. */
  read = ''
  #bytes = 0
  /** Deliveries that are done and not behind a saved checkpoint. */
  #unsaved = 0
  /** Ids of attempts that were marked, and have ended. */
  #finished: string[] = []

  constructor(options: SharesOptions) {
    this.#options = options
  }

  get(slot: number): SlotShare | undefined {
    return this.#shares.get(slot)
  }

  get all(): readonly SlotShare[] {
    return [...this.#shares.values()]
  }

  get slots(): readonly number[] {
    return [...this.#shares.keys()].toSorted((a, b) => a - b)
  }

  /** A slot that the reader does not read for yet. */
  get hasNew(): boolean {
    return this.all.some((share) => !share.hasJoined)
  }

  /** Deliveries that are done and that no saved checkpoint covers. */
  get unsaved(): number {
    return this.#unsaved
  }

  /** Deliveries read that no saved checkpoint covers. */
  get ahead(): number {
    return this.#unsaved + this.all.reduce((sum, share) => sum + share.pending, 0)
  }

  get hasUnsaved(): boolean {
    return this.#unsaved > 0 || this.all.some((share) => share.savedSuspect !== share.isSuspect)
  }

  /** Nothing is under way. */
  get isQuiet(): boolean {
    return this.all.every((share) => share.pending === 0)
  }

  get hasRoom(): boolean {
    const { windowMax, failedMax, held } = this.#options
    return this.#bytes < bytesMax && held.storedCount < failedMax && this.ahead < windowMax
  }

  /** Waits until more may be read, or until somebody wakes it. */
  async room(): Promise<void> {
    if (!this.hasRoom) await this.#room.wait(1_000)
  }

  wake(): void {
    this.#room.wake()
  }

  async take(taken: readonly TakenSlot[]): Promise<void> {
    const { store, held } = this.#options
    const slots = taken.map(({ slot }) => slot)
    const [marks, stored, keys] = [
      await store().marks(slots),
      await store().storedAhead(slots),
      await store().held(slots),
    ]
    for (const { slot, epoch, position, suspect } of taken) {
      const own = marks.filter((mark) => mark.slot === slot)
      const share = new SlotShare({
        slot,
        epoch,
        position,
        isSuspect: suspect || own.length > 0,
        marks: new Map(
          own.map(({ id, xid, attempts, alone }): [string, Mark] => [`${id}/${xid}`, { attempts, isAlone: alone }]),
        ),
        stored: new Set(stored.filter((one) => one.slot === slot).map(({ id, xid }) => `${id}/${xid}`)),
      })
      this.#shares.set(slot, share)
    }
    for (const { slot, topic, key, count } of keys) {
      held.count(slot, count)
      held.hold(key === null ? undefined : `${topic}\u001f${key}`, slot)
    }
  }

  /** They are somebody else's: whatever is under way of them is forgotten. */
  lose(slots: readonly number[]): void {
    for (const slot of slots) {
      const share = this.#shares.get(slot)
      if (share === undefined) continue
      share.lose()
      for (const entry of share.undone()) this.#bytes -= entry.bytes
      this.#shares.delete(slot)
      this.#options.held.forgetSlot(slot)
    }
    if (this.#shares.size === 0) {
      this.read = ''
      this.#unsaved = 0
      this.#finished = []
    }
    this.#room.wake()
  }

  add(entry: Entry): void {
    entry.share.add(entry)
    this.#bytes += entry.bytes
    // More than can have been in flight when the last owner died.
    if (entry.share.added >= this.#options.windowMax) entry.share.endSuspicion()
  }

  /** Confirmed, or stored as failed. */
  done(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.isDone || entry.share.isGone) continue
      entry.isDone = true
      this.#bytes -= entry.bytes
      if (entry.isSuspect || entry.isAlone) this.#finished.push(entry.change.id)
      this.#unsaved += entry.share.advance()
    }
  }

  /** The earliest place of all slots that there are now, for a reader that reads for all of them. Undefined: there are none. */
  start(read: Position | undefined): ReadStart | undefined {
    const shares = this.all
    const from = earliestPosition(
      shares.map((share) => (share.hasJoined && read !== undefined ? read : parsePosition(share.savedPosition))),
    )
    return from === undefined ? undefined : { from: formatPosition(from), read, shares }
  }

  /** A reader reads from there: the slots that it was meant for take part. */
  join({ from, read, shares }: ReadStart): void {
    for (const share of shares) {
      if (read === undefined) share.hasJoined = true
      else share.rejoin({ position: read, text: formatPosition(read) })
    }
    this.read = from
  }

  /** The reader has read all that is committed. */
  level(): void {
    for (const share of this.#shares.values()) if (share.hasJoined) share.endSuspicion()
  }

  /** Forgets places that the reader has passed. */
  pass(): void {
    const read = parsePosition(this.read)
    for (const share of this.#shares.values()) if (share.hasJoined) share.pass(read)
  }

  /** Ends what is begun in the slots; see `SlotShare.leave`. */
  async leave(slots: readonly number[] = this.slots): Promise<void> {
    const read = this.#readPlace()
    await Promise.all(slots.flatMap((slot) => this.#shares.get(slot)?.leave(read) ?? []))
  }

  /** Saves the places of all slots that have moved, or of those given. */
  async save(slots: readonly number[] = this.slots, givesBack = false): Promise<void> {
    if (this.#options.isInDoubt()) return
    const shares = slots.flatMap((slot) => this.#shares.get(slot) ?? [])
    const read = this.#readPlace()
    const moved = shares
      .map((share) => ({ share, slot: share.slot, position: share.position(read), suspect: share.isSuspect }))
      .filter(
        ({ share, position, suspect }) =>
          givesBack || position !== share.savedPosition || suspect !== share.savedSuspect,
      )
    if (moved.length === 0) return
    const [unsaved, finished] = [this.#unsaved, this.#finished]
    this.#finished = []
    const saved = await this.#options
      .store()
      .save(
        moved.map(({ slot, position, suspect }) => ({ slot, position, suspect })),
        finished,
        givesBack,
      )
      .catch((error: unknown) => {
        this.#finished.push(...finished)
        throw error
      })
    for (const { share, position, suspect } of moved) {
      if (!saved.has(share.slot)) continue
      share.savedPosition = position
      share.savedSuspect = suspect
    }
    this.#unsaved = Math.max(0, this.#unsaved - unsaved)
    this.#room.wake()
    if (!givesBack && moved.some(({ slot }) => !saved.has(slot))) this.#options.onLost()
  }

  /** Undefined: nothing has been read yet. */
  #readPlace(): ReadPlace | undefined {
    return this.read === '' ? undefined : { position: parsePosition(this.read), text: this.read }
  }
}
