import { type Seen } from './messages.ts'

/** Something an instance showed that no transaction may ever show. */
export interface Violation {
  readonly instance: number
  readonly revision: number
  readonly what: string
}

/** One transaction that was committed, and when each instance had it. */
interface CommittedRevision {
  /** Rows that carry the revision. */
  readonly rows: number
  /** When COMMIT was sent: nobody may see it before, and the latency counts from here. */
  readonly commitAtMs: number
  /** By process: a killed instance's successor counts anew. */
  readonly seenAtMs: Map<number, number>
}

/** One process of an instance. */
export interface Witness {
  readonly instance: number
  readonly pid: number
}

interface Wait {
  readonly revision: number
  readonly resolve: () => void
  missing: Set<number>
}

/** How long to wait for an instance to see a commit, in milliseconds; then something is wrong. */
const visibleTimeoutMs = 30_000
/** How many revisions are remembered: whoever reports one older than that has long been heard. */
const remembered = 2_000

/**
 * Knows what was committed and what every instance has seen of it, and what must not be seen: a revision that was never
 * committed or not yet, one that comes in two parts, one that comes with too few rows.
 */
export class Visibility {
  readonly #onViolation: (violation: Violation) => void
  readonly #committed = new Map<number, CommittedRevision>()
  #last = 0
  #waits: Wait[] = []

  constructor(onViolation: (violation: Violation) => void) {
    this.#onViolation = onViolation
  }

  /** The number of a new transaction. It may not be seen until `commit` was called for it. */
  next(): number {
    this.#last += 1
    return this.#last
  }

  /** Call right before COMMIT is sent. */
  commit(revision: number, rows: number, commitAtMs: number): void {
    this.#committed.set(revision, { rows, commitAtMs, seenAtMs: new Map() })
    this.#committed.delete(revision - remembered)
  }

  /** Takes what an instance saw in one step. */
  record(witness: Witness, { atMs, revisions }: Seen): void {
    for (const { revision, rows } of revisions) {
      const committed = this.#committed.get(revision)
      const what = contradiction(committed, { atMs, rows, pid: witness.pid, isAlone: revisions.length === 1 })
      if (what !== undefined) this.#onViolation({ instance: witness.instance, revision, what })
      if (committed?.seenAtMs.has(witness.pid) === false) committed.seenAtMs.set(witness.pid, atMs)
      for (const wait of this.#waits) {
        if (wait.revision !== revision) continue
        wait.missing.delete(witness.pid)
        if (wait.missing.size === 0) wait.resolve()
      }
    }
  }

  /**
   * Waits until all of these have seen a committed revision, or the time is over. Returns the milliseconds from COMMIT for
   * each; undefined for who has not, which is a violation.
   */
  async untilSeen(
    revision: number,
    witnesses: readonly Witness[],
    signal: AbortSignal,
  ): Promise<(number | undefined)[]> {
    const committed = this.#committed.get(revision)
    if (committed === undefined) throw new Error(`Revision ${revision} was not committed.`)
    const missing = new Set(witnesses.map(({ pid }) => pid).filter((pid) => !committed.seenAtMs.has(pid)))
    if (missing.size > 0) await this.#wait(revision, missing, signal)
    signal.throwIfAborted()
    return witnesses.map(({ instance, pid }) => {
      const seenAtMs = committed.seenAtMs.get(pid)
      if (seenAtMs !== undefined) return seenAtMs - committed.commitAtMs
      this.#onViolation({ instance, revision, what: `was not seen within ${visibleTimeoutMs} ms` })
      return undefined
    })
  }

  async #wait(revision: number, missing: Set<number>, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const wait: Wait = { revision, missing, resolve }
    this.#waits.push(wait)
    const timer = setTimeout(resolve, visibleTimeoutMs)
    const giveUp = (): void => resolve()
    signal.addEventListener('abort', giveUp)
    await promise
    clearTimeout(timer)
    signal.removeEventListener('abort', giveUp)
    this.#waits = this.#waits.filter((other) => other !== wait)
  }
}

interface Sighting {
  readonly atMs: number
  readonly rows: number
  readonly pid: number
  /** It was the only transaction of its step: no later one can have written some of its rows again. */
  readonly isAlone: boolean
}

function contradiction(committed: CommittedRevision | undefined, sighting: Sighting): string | undefined {
  if (committed === undefined) return 'was seen and never committed'
  if (sighting.atMs < committed.commitAtMs) return 'was seen before its COMMIT was sent'
  if (committed.seenAtMs.has(sighting.pid)) return `was seen in parts: ${sighting.rows} rows came in another step`
  if (sighting.isAlone && sighting.rows !== committed.rows) {
    return `was seen with ${sighting.rows} of its ${committed.rows} rows`
  }
  return undefined
}
