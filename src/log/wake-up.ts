import { quoteIdentifier } from '../postgres/index.ts'
import type { Session } from './session.ts'

/** Lists open writers: of the log, or of the event store. */
export type WritersRoutine = 'open_writers' | 'event_writers'

/**
 * The reader's half of the wake-up, an eventcount: a reader that is about to sleep takes a shared advisory lock, looks once
 * more for rows and for open writers, and only then waits. A writer notifies only when that lock is held.
 *
 * W1. A writer that skipped its NOTIFY tried the lock before this reader had it; it wrote to the log before that. So it is
 *     in the list of open writers taken after the lock, or it has ended and the look that follows sees its rows.
 * W2. Any writer that is not in that list tries the lock while it is held, and notifies.
 * W3. Hence a reader that keeps looking until every member of the list is gone, and then waits, misses nobody.
 */
export class WakeUp {
  readonly #openWriters: string
  #held: readonly number[] = []
  #awaited: ReadonlySet<string> = new Set()

  /** `writers`: the routine that lists the open writers of what is read. */
  constructor(schema: string, writers: WritersRoutine = 'open_writers') {
    this.#openWriters = `${quoteIdentifier(schema)}.${writers}()`
  }

  /** True while writers are told that somebody sleeps. */
  get isAsleep(): boolean {
    return this.#held.length > 0
  }

  /** Open writers that may have skipped their NOTIFY; while there are any, keep looking. */
  get awaitedWriters(): number {
    return this.#awaited.size
  }

  /**
   * Takes the locks of the topics and lists the open writers; look for rows after it. False: a writer was just testing
   * one of the locks, none is held, try again.
   */
  async fallAsleep(session: Session, lockClass: number, wakeKeys: readonly number[]): Promise<boolean> {
    const keys = [...new Set(wakeKeys)]
    const tries = keys.map((key) => `pg_try_advisory_lock_shared(${lockClass}, ${key})`)
    const [locks, writers] = await session.query(`select ${tries.join(', ')}; select ${this.#openWriters}`)
    this.#held = keys.filter((_, place) => locks?.rows[0]?.[place] === true)
    this.#awaited = new Set(writers?.rows[0]?.[0] as string[])
    if (this.#held.length === keys.length) return true
    await this.wakeUp(session, lockClass)
    return false
  }

  /** Forgets the writers that have ended since. Look for rows after it. */
  async checkWriters(session: Session): Promise<void> {
    const [writers] = await session.query(`select ${this.#openWriters}`)
    const open = new Set(writers?.rows[0]?.[0] as string[])
    this.#awaited = new Set([...this.#awaited].filter((writer) => open.has(writer)))
  }

  /** Gives the locks back: an awake reader looks by itself, nobody needs to tell it. */
  async wakeUp(session: Session, lockClass: number): Promise<void> {
    const held = this.#held
    this.forget()
    if (held.length === 0) return
    await session.query(`select ${held.map((key) => `pg_advisory_unlock_shared(${lockClass}, ${key})`).join(', ')}`)
  }

  /** The session is gone, and the locks with it. */
  forget(): void {
    this.#held = []
    this.#awaited = new Set()
  }
}
