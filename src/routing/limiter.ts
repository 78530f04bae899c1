/** At most so many at a time; the others wait in line. */
export class Limiter {
  readonly #max: number
  readonly #line: (() => void)[] = []
  #taken = 0

  constructor(max: number) {
    this.#max = max
  }

  get taken(): number {
    return this.#taken
  }

  /** True when a place was had in time; give it back with `leave`. */
  async enter(timeoutMs: number): Promise<boolean> {
    if (this.#taken < this.#max) {
      this.#taken += 1
      return true
    }
    return new Promise((resolve) => {
      const proceed = (): void => {
        clearTimeout(timer)
        resolve(true)
      }
      const timer = setTimeout(() => {
        this.#line.splice(this.#line.indexOf(proceed), 1)
        resolve(false)
      }, timeoutMs)
      this.#line.push(proceed)
    })
  }

  leave(): void {
    const next = this.#line.shift()
    if (next === undefined) this.#taken -= 1
    else next()
  }
}
