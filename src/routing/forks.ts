import type { Position } from './token.ts'

/**
 * Where timelines begin: a promotion ends the old one at what the new primary had got of it, and what was written beyond is lost.
 * A primary tells it (what it had replayed when it was promoted) until it is restarted; after a crash it tells a later place, so
 * the earliest counts.
 */
export class Forks {
  readonly #begins = new Map<number, bigint>()

  note(timeline: number, lsn: bigint | undefined): void {
    if (lsn === undefined) return
    const known = this.#begins.get(timeline)
    if (known === undefined || lsn < known) this.#begins.set(timeline, lsn)
  }

  /** The beginning of a later timeline that lacks this position; undefined: none is known that does. */
  lossOf({ systemId, timeline, lsn }: Position): Position | undefined {
    for (const [later, begin] of this.#begins)
      if (later > timeline && lsn > begin) return { systemId, timeline: later, lsn: begin }
    return undefined
  }
}
