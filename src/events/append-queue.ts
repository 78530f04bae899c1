import { DatabaseError } from 'pg'
import type { Queryable } from '../postgres/index.ts'
import { type PreparedAppend, sendAppend, sendAppends } from './append.ts'
import type { AppendResult } from './event.ts'

/** Transactions under way at once, before others wait for one of them to end: 1 waits for every flush, many share little. */
const lanes = 3
/** Most appends of one transaction, and most text, in characters. */
const groupAppendsMax = 32
const groupCharactersMax = 256 * 1024
/** A transaction that takes longer makes nobody wait. */
const slowAfterMs = 25
/** Longest wait of a group for a lock: what stands behind one stream should not hold up the others. */
const groupLockTimeoutMs = 50

interface Waiting {
  readonly append: PreparedAppend
  readonly resolve: (result: Promise<AppendResult>) => void
}

/**
 * Sends the appends of one process that need no transaction of their own. Alone, an append is sent at once. Those that come while
 * others are under way wait for one of these to end, and then share a transaction: a round trip and a commit for all of them. Each
 * append is still whole or not there at all, and has its own result: when a group fails, for whatever reason, nothing of it was
 * written, and each is sent by itself.
 */
export class AppendQueue {
  readonly #db: Queryable
  readonly #schema: string
  readonly #waiting: Waiting[] = []
  /** Streams somebody holds a lock of, as far as is known: how many appends of ours are there. Others must not wait with them. */
  readonly #alone = new Map<string, number>()
  #running = 0
  #isWoken = false

  constructor(db: Queryable, schema: string) {
    this.#db = db
    this.#schema = schema
  }

  async send(append: PreparedAppend): Promise<AppendResult> {
    if (append.characters > groupCharactersMax || this.#alone.has(append.name)) return this.#sendAlone(append)
    if (this.#running === 0 && this.#waiting.length === 0) return this.#inLane(async () => this.#sendOne(append))
    return new Promise((resolve) => {
      this.#waiting.push({ append, resolve })
      this.#wake()
    })
  }

  async #inLane<Result>(run: () => Promise<Result>): Promise<Result> {
    this.#running += 1
    let isCounted = true
    const leave = (): void => {
      if (!isCounted) return
      isCounted = false
      this.#running -= 1
      this.#wake()
    }
    const slow = setTimeout(leave, slowAfterMs)
    try {
      return await run()
    } finally {
      clearTimeout(slow)
      leave()
    }
  }

  /** Soon, not at once: those who were just answered come with their next append. */
  #wake(): void {
    if (this.#isWoken || this.#waiting.length === 0 || this.#running >= lanes) return
    this.#isWoken = true
    setImmediate(() => {
      this.#isWoken = false
      this.#next()
    })
  }

  #next(): void {
    while (this.#running < lanes && this.#waiting.length > 0) {
      const group = this.#takeGroup()
      const sent = this.#inLane(async () => this.#sendGroup(group.map(({ append }) => append)))
      for (const [index, { append, resolve }] of group.entries())
        resolve(sent.then(async (found) => found?.[index] ?? (await this.#sendAlone(append))))
    }
  }

  /** Those that came first, as many as go together: a stream twice only if neither asks for a version. */
  #takeGroup(): Waiting[] {
    const streams = new Set<string>()
    let characters = 0
    const group: Waiting[] = []
    for (let index = 0; index < this.#waiting.length && group.length < groupAppendsMax;) {
      const entry = this.#waiting[index] as Waiting
      const { name, expected, characters: length } = entry.append
      const isFree = expected === 'any' || expected === 'stream-exists' || !streams.has(name)
      characters += length
      if (characters > groupCharactersMax && group.length > 0) break
      if (isFree) group.push(...this.#waiting.splice(index, 1))
      else index += 1
      streams.add(name)
    }
    return group
  }

  /** Undefined: it failed as a whole, and nothing of it was written. */
  async #sendGroup(group: readonly PreparedAppend[]): Promise<readonly AppendResult[] | undefined> {
    const [first] = group
    try {
      if (first !== undefined && group.length === 1) return [await this.#sendOne(first)]
      return await sendAppends(this.#db, this.#schema, group, groupLockTimeoutMs)
    } catch (error) {
      // A broken connection does not say whether it was committed. That is for the caller to know, as it is without a group.
      if (group.length > 1 && error instanceof DatabaseError && error.severity === 'ERROR') return undefined
      throw error
    }
  }

  async #sendAlone(append: PreparedAppend): Promise<AppendResult> {
    this.#alone.set(append.name, 1 + (this.#alone.get(append.name) ?? 0))
    try {
      return await this.#sendOne(append)
    } finally {
      const left = (this.#alone.get(append.name) ?? 1) - 1
      if (left === 0) this.#alone.delete(append.name)
      else this.#alone.set(append.name, left)
    }
  }

  async #sendOne(append: PreparedAppend): Promise<AppendResult> {
    const { result } = await sendAppend(this.#db, this.#schema, append)
    return result
  }
}
