/** A number of places; who finds none free waits in line. */
export class Places {
  #free: number
  readonly #line: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /**
   * Takes a place until it is disposed of.
   *
   * @throws the signal's reason, when it is aborted by the time it is our turn.
   */
  async take(signal: AbortSignal): Promise<Disposable> {
    if (this.#free > 0) {
      this.#free -= 1
    } else {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#line.push(resolve)
      await promise
    }
    const place = { [Symbol.dispose]: () => this.#release() }
    if (signal.aborted) {
      this.#release()
      throw signal.reason as Error
    }
    return place
  }

  #release(): void {
    const next = this.#line.shift()
    if (next === undefined) this.#free += 1
    else next()
  }
}
