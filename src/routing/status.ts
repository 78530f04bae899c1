import type { BreakerState } from './breaker.ts'
import { formatLsn } from './lsn.ts'
import type { Node } from './node.ts'
import type { Topology, Unfit } from './topology.ts'

/** What is known of one server. */
export interface NodeStatus {
  readonly name: string
  readonly role: 'primary' | 'replica'
  /** `serving`, or why it takes no transactions of its role. */
  readonly state: 'serving' | Unfit
  /** Of a misfit or an unreachable server: what was found. */
  readonly reason: string | undefined
  readonly timeline: number | undefined
  /** What it has replayed, or flushed. */
  readonly lsn: string | undefined
  /** Undefined: not known. 0: level, also while nothing is written. */
  readonly lagBytes: number | undefined
  readonly lagMs: number | undefined
  readonly weight: number
  /** Transactions on it now. */
  readonly open: number
  readonly breaker: BreakerState
  /** Milliseconds that the last look at it took. */
  readonly latencyMs: number | undefined
}

export function nodeStatus(node: Node, topology: Topology): NodeStatus {
  const isPrimary = node === topology.primary
  const { probe, lag } = node
  return {
    name: node.name,
    role: isPrimary ? 'primary' : 'replica',
    state: isPrimary ? 'serving' : (topology.unfit(node) ?? 'serving'),
    reason: node.misfit ?? node.lastError?.message,
    timeline: probe?.timeline,
    lsn: probe === undefined ? undefined : formatLsn(probe.lsn),
    lagBytes: isPrimary ? undefined : lag?.bytes,
    lagMs: isPrimary ? undefined : lag?.ms,
    weight: node.weight,
    open: node.open,
    breaker: node.breaker.state,
    latencyMs: node.latencyMs,
  }
}
