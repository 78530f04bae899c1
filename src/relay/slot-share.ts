import {
  type Change,
  comparePositions,
  compareSnapshots,
  isCovered,
  parsePosition,
  type Position,
} from '../log/index.ts'
import { Fifo } from './fifo.ts'
import type { Delivery, DeliveryError } from './sink.ts'

/** One delivery under way: read, and neither confirmed nor stored as failed. */
export interface Entry {
  readonly change: Change
  readonly delivery: Delivery
  readonly share: SlotShare
  readonly lane: number
  readonly holdKey: string | undefined
  /** Reading from here gives this change. */
  readonly before: string
  /** It must not be attempted: it cannot be encoded, or it has killed who attempted it. */
  readonly refusal: DeliveryError | undefined
  readonly bytes: number
  /** Its slot's last owner died while it may have been in flight. */
  readonly isSuspect: boolean
  /** It was in flight when an owner died: it is attempted while nothing else is. */
  readonly isAlone: boolean
  /** Attempts that were begun by owners that died. */
  readonly deadAttempts: number
  /** Its place among those of its slot. */
  readonly sequence: number
  /** It is in a call, or done. */
  isStarted: boolean
  /** Confirmed, or stored as failed. */
  isDone: boolean
  /** When it was first attempted, by performance.now(); 0: not yet. */
  attemptedAt: number
  /** When it failed last because the receiver was out of reach, by performance.now(); 0: never. */
  unreachedAt: number
}

/** A place in the log. */
export interface ReadPlace {
  readonly position: Position
  readonly text: string
}

/** An attempt that an owner of the slot began and did not live to end. */
export interface Mark {
  readonly attempts: number
  readonly isAlone: boolean
}

export interface SlotShareStart {
  readonly slot: number
  readonly epoch: string
  readonly position: string
  readonly isSuspect: boolean
  /** By `id/xid`. */
  readonly marks: ReadonlyMap<string, Mark>
  /** What is stored as failed although the position does not say so yet, by `id/xid`. */
  readonly stored: ReadonlySet<string>
}

/** A slot that this process owns: what of its keys is under way, and the position behind which all is confirmed or stored. */
export class SlotShare {
  readonly slot: number
  readonly epoch: string
  readonly marks: ReadonlyMap<string, Mark>
  readonly stored: ReadonlySet<string>
  /** The position that the database has. */
  savedPosition: string
  /** What the database says of it. */
  savedSuspect: boolean
  /** The reader that is open reads from no later than this slot's place. */
  hasJoined = false
  /** How far the reader was when it began to be given back, and the last delivery that was begun by then. */
  #leaving: { readonly read: ReadPlace | undefined; readonly last: number } | undefined
  /** It was lost, or given back: whatever is left of it is nobody's business here. */
  isGone = false
  /** Undefined: what is read now may have been in flight when the last owner died. */
  #suspectAfter: number | undefined
  #isSuspect: boolean
  /** Entries ever added. */
  #added = 0
  #popped = 0
  /** Places that it has had, and that the reader has not passed. */
  #skips: ReadPlace[]
  readonly #entries = new Fifo<Entry>()
  #inFlight = 0
  #onQuiet: (() => void) | undefined

  constructor(start: SlotShareStart) {
    this.slot = start.slot
    this.epoch = start.epoch
    this.marks = start.marks
    this.stored = start.stored
    this.savedPosition = start.position
    this.savedSuspect = start.isSuspect
    this.#isSuspect = start.isSuspect
    this.#skips = [{ position: parsePosition(start.position), text: start.position }]
  }

  /** What is added now may be why the last owner died. */
  get isSuspectNow(): boolean {
    return this.#isSuspect && this.#suspectAfter === undefined
  }

  /** Until all that may have been in flight when the last owner died has gone through. */
  get isSuspect(): boolean {
    return this.#isSuspect
  }

  /** Entries that are not behind the position yet. */
  get pending(): number {
    return this.#entries.length
  }

  /** All that its last owner may have had in flight has been read. */
  endSuspicion(): void {
    if (!this.isSuspectNow) return
    this.#suspectAfter = this.#added
    if (this.#popped >= this.#suspectAfter) this.#isSuspect = false
  }

  /** Entries added since it was taken. */
  get added(): number {
    return this.#added
  }

  add(entry: Entry): void {
    this.#entries.push(entry)
    this.#added += 1
  }

  /** Takes away what is done at the front. Returns how many. */
  advance(): number {
    let count = 0
    while (this.#entries.peek()?.isDone === true) {
      this.#entries.shift()
      count += 1
    }
    this.#popped += count
    if (this.#suspectAfter !== undefined && this.#popped >= this.#suspectAfter) this.#isSuspect = false
    return count
  }

  /** The reader begins anew further back: what is covered by `read` is not to be added twice. */
  rejoin(read: ReadPlace): void {
    if (this.hasJoined) this.#skips.push(read)
    this.hasJoined = true
  }

  /** It is somebody else's. */
  lose(): void {
    this.isGone = true
    this.#tellQuiet()
  }

  #tellQuiet(): void {
    if (this.#leaving !== undefined && this.#isQuiet()) this.#onQuiet?.()
  }

  /** True when the slot has had the row. */
  hasHad({ xid, id }: Change): boolean {
    if (this.#skips.length === 0 && this.stored.size === 0) return false
    return (
      this.stored.has(`${id}/${xid}`) ||
      this.#skips.some(({ position }) => isCovered(position, BigInt(xid), BigInt(id)))
    )
  }

  /** Forgets the places that the reader has passed. */
  pass(read: Position): void {
    if (this.#skips.length === 0) return
    this.#skips = this.#skips.filter(({ position }) => compareSnapshots(position.to ?? position.from, read.from) > 0)
  }

  /** Everything up to here is confirmed or stored; `read`: how far the reader is. */
  position(read: ReadPlace | undefined): string {
    const head = this.#entries.peek()
    if (head !== undefined) return head.before
    if (!this.hasJoined || read === undefined) return this.savedPosition
    const reached = this.#leaving?.read ?? read
    const skip = this.#skips.toSorted((a, b) => comparePositions(a.position, b.position)).at(-1)
    return skip !== undefined && comparePositions(skip.position, reached.position) > 0 ? skip.text : reached.text
  }

  /** True when more of it may be read, and what is stored may be attempted. */
  get isOpen(): boolean {
    return !this.isGone && this.#leaving === undefined
  }

  /** True when the delivery may be begun. Of a slot that is given back: what comes before one that was begun. */
  isWanted(entry: Entry): boolean {
    return !this.isGone && (this.#leaving === undefined || entry.sequence <= this.#leaving.last)
  }

  /**
   * It is to be given back. Resolves when nothing of it is in flight, and all is done that comes before something that was
   * begun: the next owner begins behind it, and repeats nothing. `read`: how far the reader is.
   */
  async leave(read: ReadPlace | undefined): Promise<void> {
    const last = [...this.#entries].findLast((entry) => entry.isStarted || entry.isDone)
    this.#leaving ??= { read, last: last?.sequence ?? -1 }
    if (this.#isQuiet()) return
    await new Promise<void>((resolve) => {
      this.#onQuiet = resolve
    })
  }

  #isQuiet(): boolean {
    const head = this.#entries.peek()
    return this.#inFlight === 0 && (this.isGone || head === undefined || head.sequence > (this.#leaving?.last ?? -1))
  }

  beginCall(): void {
    this.#inFlight += 1
  }

  endCall(): void {
    this.#inFlight -= 1
    this.#tellQuiet()
  }

  /** What is not done. */
  undone(): Entry[] {
    return [...this.#entries].filter((entry) => !entry.isDone)
  }
}
