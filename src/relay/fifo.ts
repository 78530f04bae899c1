/** A queue whose ends both cost the same however long it is. */
export class Fifo<Item> {
  #items: (Item | undefined)[] = []
  #first = 0

  get length(): number {
    return this.#items.length - this.#first
  }

  peek(): Item | undefined {
    return this.#items[this.#first]
  }

  push(item: Item): void {
    this.#items.push(item)
  }

  shift(): Item | undefined {
    const item = this.#items[this.#first]
    if (this.length === 0) return undefined
    this.#items[this.#first] = undefined
    this.#first += 1
    if (this.#first >= 1_024 && this.#first * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#first)
      this.#first = 0
    }
    return item
  }

  /** Puts items back to the front, in their order. */
  unshift(items: readonly Item[]): void {
    if (items.length === 0) return
    this.#items = [...items, ...this.#items.slice(this.#first)]
    this.#first = 0
  }

  /** Takes all out. */
  clear(): Item[] {
    const items = this.#items.slice(this.#first) as Item[]
    this.#items = []
    this.#first = 0
    return items
  }

  [Symbol.iterator](): Iterator<Item> {
    return (this.#items.slice(this.#first) as Item[])[Symbol.iterator]()
  }
}
