import { rounded } from './clock.ts'

export interface Percentiles {
  readonly count: number
  readonly p50: number | null
  readonly p99: number | null
  readonly max: number | null
}

/** Measurements kept: when there are more, the oldest go. */
const keptMax = 20_000

/** Measured milliseconds, and what they come to. */
export class Latencies {
  #values: number[] = []
  #count = 0

  add(ms: number): void {
    this.#count += 1
    this.#values.push(ms)
    if (this.#values.length > keptMax) this.#values = this.#values.slice(keptMax / 2)
  }

  get last(): number | undefined {
    return this.#values.at(-1)
  }

  percentiles(): Percentiles {
    const sorted = this.#values.toSorted((left, right) => left - right)
    const at = (share: number): number | null => {
      const value = sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]
      return value === undefined ? null : rounded(value)
    }
    return { count: this.#count, p50: at(0.5), p99: at(0.99), max: at(1) }
  }
}

/** The middle one; 0 of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}
