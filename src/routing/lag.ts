/** Samples of the primary that are kept. */
const samplesMax = 300
/** Samples may be apart by this share of their age: however often is looked, a long lag is told, to within a tenth. */
const spacing = 0.05

interface Sample {
  readonly at: number
  readonly lsn: bigint
}

/** How far a replica is behind. */
export interface Lag {
  /** WAL that the primary had flushed when last asked and the replica has not replayed; 0 when level. */
  readonly bytes: number
  /** Milliseconds since the primary was first seen to have more, to within a look's interval; 0 when level, also when idle. */
  readonly ms: number
}

/**
 * Where the primary was when, by this process's own clock, so that a replay position can be told as a time without trusting
 * anybody's clock. (now() - pg_last_xact_replay_timestamp() grows on an idle primary; a comparison of LSNs does not.)
 */
export class LagHistory {
  #samples: Sample[] = []

  get isEmpty(): boolean {
    return this.#samples.length === 0
  }

  /** The primary was at `lsn` at `at` milliseconds. A lower one than before is another history: the old one is forgotten. */
  add(lsn: bigint, at: number): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && lsn < last.lsn) this.#samples = []
    if (last?.lsn === lsn) return
    this.#samples.push({ at, lsn })
    if (this.#samples.length <= samplesMax) return
    let kept = Number.NEGATIVE_INFINITY
    this.#samples = this.#samples.filter((sample) => {
      if (sample.at - kept < (at - sample.at) * spacing) return false
      kept = sample.at
      return true
    })
  }

  clear(): void {
    this.#samples = []
  }

  /**
   * The lag of a replica that was asked at `at`, against what the primary was known to have by then: looks are not
   * simultaneous. Undefined while the primary has not been asked.
   */
  lagOf(replayLsn: bigint, at: number): Lag | undefined {
    const known = this.#samples.filter((sample) => sample.at <= at)
    const last = known.at(-1)
    if (last === undefined) return this.#samples.length === 0 ? undefined : { bytes: 0, ms: 0 }
    const missing = known.find(({ lsn }) => lsn > replayLsn)
    if (missing === undefined) return { bytes: 0, ms: 0 }
    return { bytes: Number(last.lsn - replayLsn), ms: Math.max(1, at - missing.at) }
  }
}
