import type { KeyPart } from './key.ts'

type Level<Value> = Map<KeyPart, Value | Level<Value>>

/**
 * A map by the columns of a primary key, one level a column: looking up a composite key builds no string and can mistake
 * no key for another.
 */
export class KeyMap<Value> {
  readonly #root: Level<Value> = new Map()
  readonly #depth: number
  #size = 0

  /** `depth`: columns of the key, at least one. */
  constructor(depth: number) {
    this.#depth = depth
  }

  get size(): number {
    return this.#size
  }

  /** By a key of one column: one look-up. */
  getOne(part: KeyPart): Value | undefined {
    return this.#root.get(part) as Value | undefined
  }

  get(parts: readonly KeyPart[]): Value | undefined {
    let level: unknown = this.#root
    for (let depth = 0; depth < this.#depth && level !== undefined; depth += 1) {
      level = (level as Level<Value>).get(parts[depth] as KeyPart)
    }
    return level as Value | undefined
  }

  set(parts: readonly KeyPart[], value: Value): void {
    let level = this.#root
    for (let depth = 0; depth < this.#depth - 1; depth += 1) {
      const part = parts[depth] as KeyPart
      let next = level.get(part) as Level<Value> | undefined
      if (next === undefined) {
        next = new Map()
        level.set(part, next)
      }
      level = next
    }
    const last = parts[this.#depth - 1] as KeyPart
    if (!level.has(last)) this.#size += 1
    level.set(last, value)
  }

  /** Removes the key and returns what it held. */
  delete(parts: readonly KeyPart[]): Value | undefined {
    return this.#deleteIn(this.#root, parts, 0)
  }

  *entries(): Generator<readonly [readonly KeyPart[], Value]> {
    yield* this.#entriesOf(this.#root, [])
  }

  *values(): Generator<Value> {
    yield* this.#valuesOf(this.#root, 1)
  }

  #deleteIn(level: Level<Value>, parts: readonly KeyPart[], depth: number): Value | undefined {
    const part = parts[depth] as KeyPart
    const found = level.get(part)
    if (found === undefined) return undefined
    if (depth === this.#depth - 1) {
      level.delete(part)
      this.#size -= 1
      return found as Value
    }
    const removed = this.#deleteIn(found as Level<Value>, parts, depth + 1)
    if ((found as Level<Value>).size === 0) level.delete(part)
    return removed
  }

  *#valuesOf(level: Level<Value>, depth: number): Generator<Value> {
    if (depth === this.#depth) yield* level.values() as Iterable<Value>
    else for (const next of level.values()) yield* this.#valuesOf(next as Level<Value>, depth + 1)
  }

  *#entriesOf(level: Level<Value>, above: readonly KeyPart[]): Generator<readonly [readonly KeyPart[], Value]> {
    const isLast = above.length === this.#depth - 1
    for (const [part, next] of level) {
      if (isLast) yield [[...above, part], next as Value]
      else yield* this.#entriesOf(next as Level<Value>, [...above, part])
    }
  }
}
