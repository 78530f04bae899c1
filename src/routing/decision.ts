import type { Lag } from './lag.ts'

/**
 * Why a transaction went where it went. `replica`: a read as wanted; `token`: on a replica that was shown to have replayed its
 * token; `stale`: the fallback of that name. On the primary: `write`, `serializable` (a standby has no such transactions),
 * `no-replicas` (none is configured), `unavailable`, `lagging`, `token-not-reached`, `other-timeline` (the token is of another
 * history than the replicas), `pinned` (a write whose token could not be asked for). `conflict` and `node-failed`: once more,
 * elsewhere. `joined`: in the transaction around it. `refused`: nowhere.
 */
export type Reason =
  | 'replica'
  | 'token'
  | 'stale'
  | 'write'
  | 'serializable'
  | 'no-replicas'
  | 'unavailable'
  | 'lagging'
  | 'token-not-reached'
  | 'other-timeline'
  | 'pinned'
  | 'conflict'
  | 'node-failed'
  | 'joined'
  | 'refused'

/** Where one transaction went, and why: told by the event `decision`, and counted. */
export interface Decision {
  readonly intent: 'read' | 'write'
  readonly target: 'replica' | 'primary' | 'none'
  /** Name of the server; undefined where there was none. */
  readonly node: string | undefined
  readonly reason: Reason
  /** The caller's own label. */
  readonly label: string | undefined
  /** Milliseconds that the replica was waited for to replay the token. */
  readonly waitedMs: number
  /** How far the replica was behind at the last look; undefined on the primary. */
  readonly lag: Lag | undefined
}

/** How often a decision was taken. */
export interface DecisionCount {
  readonly intent: Decision['intent']
  readonly target: Decision['target']
  readonly reason: Reason
  readonly count: number
}

/** Counts decisions by what and why. */
export class DecisionCounter {
  readonly #counts = new Map<string, { readonly decision: Decision; count: number }>()

  add(decision: Decision): void {
    const key = `${decision.intent} ${decision.target} ${decision.reason}`
    const entry = this.#counts.get(key)
    if (entry === undefined) this.#counts.set(key, { decision, count: 1 })
    else entry.count += 1
  }

  list(): DecisionCount[] {
    return Array.from(this.#counts.values(), ({ decision: { intent, target, reason }, count }) => ({
      intent,
      target,
      reason,
      count,
    }))
  }
}
