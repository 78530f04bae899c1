/** A look at the event table: every position up to `last` that was not visible belongs to one of `writers`, or to nobody. */
interface Look {
  readonly last: bigint
  readonly writers: Set<string>
}

/** Looks that are kept. More let a reader go on a little earlier while many long writers overlap. */
const looksMax = 64

/**
 * What a reader of the global order knows of transactions that were open when it looked.
 *
 * G1. A position is drawn while its transaction holds its lock on the table, and a commit is visible before its locks go. So of
 *     last position, writers, events, read in this order, each position up to the last is visible, or its transaction is among
 *     the writers, or it rolled back.
 * G2. When all writers of a look are gone, what is not visible after that never will be: up to that look all is settled.
 * G3. A transaction that is prepared goes on under another name. So where a writer is gone, every prepared one that is new since
 *     the look before may be it, and is waited for in its place.
 */
export class OpenWriters {
  #settled = 0n
  #looks: Look[] = []
  #before: ReadonlySet<string> = new Set()

  /** Up to here nothing is open any more. Good for what is read from now on. */
  get settled(): bigint {
    return this.#settled
  }

  /** Takes in a look; `writers` were read after `last`. */
  add(last: bigint, writers: readonly string[]): void {
    const open = new Set(writers)
    const newlyPrepared = writers.filter((writer) => isPrepared(writer) && !this.#before.has(writer))
    for (const look of this.#looks) waitForThose(look.writers, open, newlyPrepared)
    while (this.#looks[0]?.writers.size === 0) {
      const look = this.#looks.shift()
      if (look !== undefined && look.last > this.#settled) this.#settled = look.last
    }
    this.#before = open
    if (open.size === 0) {
      this.#looks = []
      if (last > this.#settled) this.#settled = last
      return
    }
    // Of too many, the newest gives way: those before it settle first anyway.
    if (this.#looks.length === looksMax) this.#looks.pop()
    this.#looks.push({ last, writers: open })
  }
}

/** Removes who is gone, and adds whom one of them may have become. */
function waitForThose(writers: Set<string>, open: ReadonlySet<string>, newlyPrepared: readonly string[]): void {
  let mayBePrepared = false
  for (const writer of writers) {
    if (open.has(writer)) continue
    writers.delete(writer)
    mayBePrepared ||= !isPrepared(writer)
  }
  if (mayBePrepared) for (const writer of newlyPrepared) writers.add(writer)
}

function isPrepared(writer: string): boolean {
  return writer.startsWith('-1/')
}
