import { pause } from '../core/index.ts'
import { parseLsn } from './lsn.ts'
import { hearBackend, knowledge } from './node.ts'
import type { Position } from './token.ts'

/** Longest pause between two looks at the replay position, in milliseconds. */
const lookEveryMsMax = 20
/** What a look may take beyond the patience, in milliseconds, before the connection counts as dead. */
const answerMs = 500
/** How long a connection to PostgreSQL 12 or 13, which does not tell of its promotion, is believed, in milliseconds. */
const believedMs = 1_000

/** What a read wants of a replica. */
export interface Wanted {
  readonly floor: Position | undefined
  /** Of the replica, by the last look at it. */
  readonly timeline: number
  readonly patienceMs: number
}

export type Replay = 'reached' | 'not-reached' | 'other-timeline' | 'promoted'

/** The row of `replayStatement`; fails when it is not there in time. */
export type AskReplay = (timeoutMs: number) => Promise<readonly unknown[]>

const believedUntil = new WeakMap<object, number>()

/**
 * Waits on the connection of a read, before its BEGIN, until its server has replayed the position: a snapshot taken first
 * would miss what is replayed after it. A connection is one backend of one server, whose replay only goes forward: what it
 * has told once need not be asked again, but where a pooler is between.
 *
 * @throws what the connection throws.
 */
export async function untilReplayed(client: object, ask: AskReplay, wanted: Wanted): Promise<Replay> {
  const { floor, timeline, patienceMs } = wanted
  const known = knowledge(client)
  const isReachedBefore = floor === undefined || (!known.isPooled && isReached(known.replayed, floor))
  if (isReachedBefore && isBelieved(client)) return 'reached'
  const until = performance.now() + patienceMs
  for (let waitMs = 1; ; waitMs = Math.min(2 * waitMs, lookEveryMsMax)) {
    const [isStandby, text, received, pid] = await ask(Math.max(0, until - performance.now()) + answerMs)
    hearBackend(client, pid)
    if (isStandby !== true) return 'promoted'
    believedUntil.set(client, performance.now() + believedMs)
    const lsn = parseLsn(String(text)) ?? 0n
    // The receiver's timeline is shown to roles that may see it, and while it runs; else it is what the last look showed.
    known.replayed = { timeline: typeof received === 'number' && received > 0 ? received : timeline, lsn }
    if (floor !== undefined && known.replayed.timeline !== floor.timeline) return 'other-timeline'
    if (isReached(known.replayed, floor)) return 'reached'
    const leftMs = until - performance.now()
    if (leftMs <= 0) return 'not-reached'
    await pause(Math.min(waitMs, leftMs))
  }
}

function isReached(replayed: { timeline: number; lsn: bigint } | undefined, floor: Position | undefined): boolean {
  if (floor === undefined) return true
  return replayed !== undefined && replayed.timeline === floor.timeline && replayed.lsn >= floor.lsn
}

/** That it leads to a standby. */
function isBelieved(client: object): boolean {
  const { inHotStandby, isPooled } = knowledge(client)
  if (inHotStandby === true && !isPooled) return true
  return (inHotStandby === undefined || isPooled) && performance.now() < (believedUntil.get(client) ?? 0)
}
