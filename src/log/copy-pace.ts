/** Rows of the first page of a copy; how wide they are is not known before. */
const firstRows = 100
/** Rows fetched at once, at most. */
const pageRowsMax = 5_000
/** A page that took less is followed by a larger one, in milliseconds. */
const quickMs = 500
/** A page that took more, by a smaller one. */
const slowMs = 2_000

/** How many rows the pages of a copy have: rows may be of bytes or of megabytes, and each page has a limit of time. */
export class CopyPace {
  #rows = firstRows

  /** Rows of the next page. */
  get rows(): number {
    return this.#rows
  }

  /** A page of that many rows took so long. */
  took(ms: number): void {
    if (ms < quickMs) this.#rows = Math.min(pageRowsMax, this.#rows * 2)
    else if (ms > slowMs) this.#rows = Math.max(1, Math.floor(this.#rows / 4))
  }

  /** A page was not there in time: the next copy begins with few rows. False: one row alone takes too long. */
  failed(): boolean {
    if (this.#rows === 1) return false
    this.#rows = 1
    return true
  }
}
