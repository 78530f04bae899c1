import { copyOf } from './state-copy.ts'

/** The state of an aggregate, computed from rows that were read. */
export interface LoadedState<State> {
  readonly state: State
  /** Of the stream; 0: there is none. */
  readonly version: number
  /** The event at that version. */
  readonly eventId: string | undefined
  /** Whose personal data the state may hold. */
  readonly subjects: ReadonlySet<string>
  /** Of the newest stored snapshot that is known here, or for which the storing was tried; 0: none. */
  readonly snapshotVersion: number
}

/**
 * The states of the aggregates that were used last. They are copies: nobody who was given a state can change the one in here. What
 * is in here is only ever where a load begins (docs/aggregates.md, A3).
 */
export class HotStates<State> {
  readonly #max: number
  /** The one used last is the last. */
  readonly #states = new Map<string, LoadedState<State>>()

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#states.size
  }

  /** A copy of the state of an aggregate. */
  get(id: string): LoadedState<State> | undefined {
    const found = this.#states.get(id)
    if (found === undefined) return undefined
    this.#states.delete(id)
    this.#states.set(id, found)
    return copied(found)
  }

  /** Keeps a copy, unless there is a newer one, or the state cannot be copied. */
  put(id: string, loaded: LoadedState<State>): void {
    const known = this.#states.get(id)
    if (this.#max === 0 || loaded.version === 0 || (known !== undefined && known.version > loaded.version)) return
    const own = copied(loaded)
    if (own === undefined) return
    this.#states.delete(id)
    this.#states.set(id, own)
    for (const oldest of this.#states.keys()) {
      if (this.#states.size <= this.#max) break
      this.#states.delete(oldest)
    }
  }

  delete(id: string): void {
    this.#states.delete(id)
  }

  /** Forgets the states that hold something of a subject. */
  forget(subject: string): void {
    for (const [id, { subjects }] of this.#states) if (subjects.has(subject)) this.#states.delete(id)
  }
}

function copied<State>(loaded: LoadedState<State>): LoadedState<State> | undefined {
  const copy = copyOf(loaded.state)
  return copy === undefined ? undefined : { ...loaded, state: copy.state }
}
