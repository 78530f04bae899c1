import { hash } from 'node:crypto'

/** Where a change belongs. */
export interface Place {
  /** The share of keys that one process of the relay owns at a time; `key_slot()` in SQL gives the same. */
  readonly slot: number
  /** A number to choose among the lanes of a process by. */
  readonly lane: number
  /** What a failure holds back. */
  readonly holdKey: string | undefined
}

/** What is known of a key. */
interface KnownKey {
  readonly slot: number
  readonly lane: number
  /** Of the topic that had it last. */
  topic: string
  holdKey: string
}

/** Keys that are remembered, at most: those that change often come again soon, and a digest costs a microsecond. */
const knownMax = 10_000
/** Longest key that is remembered, in characters. */
const knownLengthMax = 200
const known = new Map<string, KnownKey>()

/** Events without a key have no order: they are spread by their id. */
export function placeOf(topic: string, key: string | null, logId: string, slots: number): Place {
  if (key === null) {
    const { slot, lane } = digestOf(logId)
    return { slot: slot % slots, lane, holdKey: undefined }
  }
  const one = known.get(key) ?? remember(key, { ...digestOf(key), topic, holdKey: holdKeyOf(topic, key) })
  if (one.topic !== topic) {
    one.topic = topic
    one.holdKey = holdKeyOf(topic, key)
  }
  return { slot: one.slot % slots, lane: one.lane, holdKey: one.holdKey }
}

function remember(key: string, one: KnownKey): KnownKey {
  if (key.length > knownLengthMax) return one
  if (known.size >= knownMax) known.clear()
  known.set(key, one)
  return one
}

function digestOf(text: string): Pick<Place, 'slot' | 'lane'> {
  const bytes = hash('sha256', text, 'buffer')
  return { slot: bytes.readUInt8(0), lane: bytes.readUInt32BE(1) }
}

/** What a failure holds back: the later ones of its topic and key. Undefined: nothing, it has no key. */
export function holdKeyOf(topic: string, key: string): string
export function holdKeyOf(topic: string, key: string | null): string | undefined
export function holdKeyOf(topic: string, key: string | null): string | undefined {
  return key === null ? undefined : `${topic}\u001f${key}`
}
