import { holdKeyOf } from './keys.ts'

interface Held {
  readonly slot: number
  /** Deliveries that are being stored for it at this moment. */
  storing: number
}

/** The keys of this process whose deliveries wait behind one that failed: what is read of them is stored, not attempted. */
export class HeldKeys {
  readonly #keys = new Map<string, Held>()
  /** Deliveries stored and not yet delivered or dead, by slot. */
  readonly #stored = new Map<number, number>()
  #version = 0

  /** Changes whenever something here changes. */
  get version(): number {
    return this.#version
  }

  /** The same of all slots of this process. */
  get storedCount(): number {
    let sum = 0
    for (const count of this.#stored.values()) sum += count
    return sum
  }

  /** So many more are stored of a slot, or less. */
  count(slot: number, by: number): void {
    this.#version += 1
    if (by !== 0) this.#stored.set(slot, Math.max(0, (this.#stored.get(slot) ?? 0) + by))
  }

  has(holdKey: string | undefined): boolean {
    return holdKey !== undefined && this.#keys.has(holdKey)
  }

  get size(): number {
    return this.#keys.size
  }

  hold(holdKey: string | undefined, slot: number): void {
    this.#version += 1
    if (holdKey !== undefined && !this.#keys.has(holdKey)) this.#keys.set(holdKey, { slot, storing: 0 })
  }

  beginStoring(holdKey: string | undefined): void {
    const held = holdKey === undefined ? undefined : this.#keys.get(holdKey)
    this.#version += 1
    if (held !== undefined) held.storing += 1
  }

  endStoring(holdKey: string | undefined): void {
    const held = holdKey === undefined ? undefined : this.#keys.get(holdKey)
    this.#version += 1
    if (held !== undefined) held.storing -= 1
  }

  /** Nothing of the key is stored any more, as the database says; unless something is on its way there. */
  release(topic: string, key: string | null): void {
    const holdKey = holdKeyOf(topic, key)
    if (holdKey !== undefined && this.#keys.get(holdKey)?.storing === 0) this.#keys.delete(holdKey)
  }

  /**
   * What the database has, by somebody else's doing as well: dead letters are discarded and redriven. `version`: from before
   * it was asked. False: something changed meanwhile here, the answer is of no use.
   */
  correct(
    version: number,
    stored: readonly {
      readonly slot: number
      readonly topic: string
      readonly key: string | null
      readonly count: number
    }[],
  ): boolean {
    if (version !== this.#version || [...this.#keys.values()].some(({ storing }) => storing > 0)) return false
    const present = new Set(stored.map(({ topic, key }) => holdKeyOf(topic, key)))
    for (const holdKey of this.#keys.keys()) if (!present.has(holdKey)) this.#keys.delete(holdKey)
    this.#stored.clear()
    for (const { slot, count } of stored) this.#stored.set(slot, (this.#stored.get(slot) ?? 0) + count)
    return true
  }

  forgetSlot(slot: number): void {
    this.#version += 1
    this.#stored.delete(slot)
    for (const [holdKey, held] of this.#keys) if (held.slot === slot) this.#keys.delete(holdKey)
  }
}
