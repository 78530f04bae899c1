import { hash } from 'node:crypto'

/** Where a key belongs. */
export interface Place {
  /** The share of keys that one process of the relay owns at a time; `key_slot()` in SQL gives the same. */
  readonly slot: number
  /** A number to choose among the lanes of a process by. */
  readonly lane: number
}

/** Events without a key have no order: they are spread by their id. */
export function placeOf(key: string | null, logId: string, slots: number): Place {
  const digest = hash('sha256', key ?? logId, 'buffer')
  return { slot: digest.readUInt8(0) % slots, lane: digest.readUInt32BE(1) }
}

/** What a failure holds back: the later ones of its topic and key. Undefined: nothing, it has no key. */
export function holdKeyOf(topic: string, key: string | null): string | undefined {
  return key === null ? undefined : `${topic}\u001f${key}`
}
