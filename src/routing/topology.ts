import { ConnectionError, InvalidInputError, type Logger, messageOf } from '../core/index.ts'
import { NoPrimaryError } from './errors.ts'
import { Forks } from './forks.ts'
import { LagHistory } from './lag.ts'
import type { Node } from './node.ts'
import type { RoutingSettings } from './options.ts'
import type { Probe } from './probe.ts'

/** A replica that lagged is back when it is within this share of the limits, so that it does not flap. */
const hysteresis = 0.5

/** Why a replica takes no reads at present. */
export type Unfit =
  | 'leaving'
  | 'misfit'
  | 'unreachable'
  | 'not-a-standby'
  | 'other-timeline'
  | 'lagging'
  | 'breaker-open'

export interface TopologyOptions {
  readonly settings: RoutingSettings
  readonly logger: Logger
  /** Another server is the primary now, or none is. */
  readonly onPrimary: (node: Node | undefined) => void
}

/**
 * Which server is the primary and which replicas may be read, from what the last looks showed.
 *
 * N1. The primary is the reachable server out of recovery with the highest timeline, if none higher has ever been seen. Two
 *     with the same timeline: none is.
 * N2. A replica serves reads only when it is in recovery, of the primary's cluster and timeline, and within the limits of lag.
 */
export class Topology {
  readonly #options: TopologyOptions
  readonly #history = new LagHistory()
  readonly #waiting = new Set<() => void>()
  #primary: Node | undefined
  #lastPrimary: Node | undefined
  #refusal: NoPrimaryError | undefined
  #highestTimeline = 0
  systemId: string | undefined
  /** Known as the cluster is. */
  #database: string | undefined
  forks: Forks = new Forks()
  nodes: Node[] = []

  constructor(options: TopologyOptions) {
    this.#options = options
  }

  get primary(): Node | undefined {
    return this.#primary
  }

  /** Why there is none. */
  get refusal(): NoPrimaryError {
    return (
      this.#refusal ??
      new NoPrimaryError('No primary is known yet.', { code: 'no_primary', retryable: true, hint: 'Try again.' })
    )
  }

  /** Resolves at the next look at any server. */
  async changed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  /** A node was looked at. */
  update(node: Node): void {
    this.#identify(node)
    const { probe } = node
    if (probe !== undefined && node.isReachable && node.misfit === undefined)
      this.forks.note(probe.timeline, probe.forkLsn)
    this.#choosePrimary()
    if (probe !== undefined && node.isReachable) {
      if (node === this.#primary) this.#sample(probe)
      else if (probe.isStandby) this.#measure(node)
    }
    for (const wake of this.#waiting) wake()
    this.#waiting.clear()
  }

  /** Why a node takes no reads; undefined: it does. */
  unfit(node: Node): Unfit | undefined {
    const { probe } = node
    if (node.misfit !== undefined) return 'misfit'
    if (node.isLeaving) return 'leaving'
    if (!node.isReachable || probe === undefined) return 'unreachable'
    if (!probe.isStandby) return 'not-a-standby'
    // Before a primary has been seen there is nothing to compare with, and reads need not wait for it.
    if (this.#highestTimeline !== 0 && probe.timeline !== this.#highestTimeline) return 'other-timeline'
    if (node.isLagging) return 'lagging'
    return node.breaker.isPassable ? undefined : 'breaker-open'
  }

  /** The servers other than the primary that could be read. */
  replicas(): Node[] {
    return this.nodes.filter((node) => node !== this.#primary && !node.isLeaving)
  }

  /** The timeline that is written now. */
  get timeline(): number {
    return this.#highestTimeline
  }

  /** @throws InvalidInputError when a server that was reached can never be a replica here. */
  checkFit(node: Node): void {
    // The same server under two names can come of a fail-over (an address that leads to the primary); it is left out, and no more.
    if (node.misfit === undefined || this.#isOurs(node)) return
    const isOfCluster = node.probe?.systemId === this.systemId
    throw new InvalidInputError(node.misfit, {
      code: isOfCluster ? 'other_database' : 'not_a_standby',
      hint: isOfCluster
        ? 'Correct replicaUrls: name the same database as for the primary.'
        : 'Correct replicaUrls: name streaming standbys of the primary, each once.',
      details: { node: node.name },
    })
  }

  /** The cluster is that of the first server; until it is known, that of whoever answered first. */
  #identify(node: Node): void {
    const { probe } = node
    if (probe === undefined || !node.isReachable) return
    if (this.systemId === undefined || (node.isFirst && this.systemId !== probe.systemId)) {
      this.systemId = probe.systemId
      this.#highestTimeline = 0
      this.forks = new Forks()
    }
    if (this.#database === undefined || node.isFirst) this.#database = probe.database
    for (const each of this.nodes) {
      const before = each.misfit
      each.misfit = this.#misfitOf(each)
      if (each.misfit === undefined || before !== undefined) continue
      this.#options.logger[this.#isOurs(each) ? 'warn' : 'error'](each.misfit)
    }
  }

  /** It has the data that is wanted, if not in the part that is wanted of it. */
  #isOurs({ probe }: Node): boolean {
    return probe?.systemId === this.systemId && probe?.database === this.#database
  }

  #misfitOf(node: Node): string | undefined {
    const { probe } = node
    if (node.isFirst || probe === undefined) return undefined
    if (probe.systemId !== this.systemId) {
      return `The replica ${node.name} is no standby of this primary: its system identifier is ${probe.systemId}, expected ${String(this.systemId)}.`
    }
    if (probe.database !== this.#database) {
      return `The replica ${node.name} leads to the database ${probe.database}, the primary to ${String(this.#database)}.`
    }
    const same = this.nodes.find(
      (other) =>
        other !== node &&
        !(!other.isFirst && this.nodes.indexOf(other) > this.nodes.indexOf(node)) &&
        isSameServer(other, node),
    )
    if (same === undefined) return undefined
    return same.isFirst
      ? `The replica ${node.name} is the primary ${same.name}: both are the same server.`
      : `The replica ${node.name} is the replica ${same.name}: both are the same server.`
  }

  #choosePrimary(): void {
    const candidates = this.nodes.filter(
      (node) => node.isReachable && !node.isLeaving && node.misfit === undefined && node.probe?.isStandby === false,
    )
    const timelines = candidates.map((node) => node.probe?.timeline ?? 0)
    this.#highestTimeline = Math.max(this.#highestTimeline, ...timelines)
    const highest = candidates.filter((node) => node.probe?.timeline === this.#highestTimeline)
    this.#refusal = refusalOf(this.nodes, { candidates, highest, timeline: this.#highestTimeline })
    const found = this.#refusal === undefined ? highest[0] : undefined
    if (found === this.#primary) return
    // A primary that cannot be reached stays the one whose LSNs were compared: reads go on while it restarts.
    if (found !== undefined) this.#history.clear()
    this.#primary = found
    if (found !== undefined) {
      // What is open on the old one must not commit there any more.
      const reason = `${found.name} is the primary now.`
      if (found !== this.#lastPrimary)
        this.#lastPrimary?.cutLeases(new ConnectionError(reason, { code: 'connection_failed', retryable: true }))
      this.#lastPrimary = found
    }
    this.#options.onPrimary(found)
  }

  #sample({ lsn, at }: Probe): void {
    const isFirst = this.#history.isEmpty
    this.#history.add(lsn, at)
    // A standby that answered before any primary had could not be compared; its next look is a second away.
    if (isFirst) for (const node of this.replicas()) if (node.probe?.isStandby === true) this.#measure(node, at)
  }

  #measure(node: Node, since = 0): void {
    const { probe } = node
    if (probe === undefined || probe.timeline !== this.#highestTimeline) return
    node.lag = this.#history.lagOf(probe.lsn, Math.max(probe.at, since))
    if (node.lag === undefined) return
    const { maxLagMs, maxLagBytes } = this.#options.settings
    const share = node.isLagging ? hysteresis : 1
    const isLagging = node.lag.ms > maxLagMs * share || node.lag.bytes > maxLagBytes * share
    if (isLagging !== node.isLagging) {
      const { bytes, ms } = node.lag
      this.#options.logger.info(
        isLagging
          ? `${node.name} is ${Math.round(ms)} ms and ${bytes} bytes behind: it serves no reads until it has caught up.`
          : `${node.name} has caught up and serves reads again.`,
      )
    }
    node.isLagging = isLagging
  }
}

function isSameServer(one: Node, other: Node): boolean {
  const [a, b] = [one.probe, other.probe]
  if (a === undefined || b === undefined || !one.isReachable || !other.isReachable) return false
  // Looks are not simultaneous; the start of a server is told to the microsecond.
  return a.systemId === b.systemId && a.startedAt === b.startedAt && a.isStandby === b.isStandby
}

function refusalOf(
  nodes: readonly Node[],
  found: { readonly candidates: readonly Node[]; readonly highest: readonly Node[]; readonly timeline: number },
): NoPrimaryError | undefined {
  const { candidates, highest, timeline } = found
  if (highest.length === 1) return undefined
  if (highest.length > 1) {
    const names = highest.map(({ name }) => name).join(' and ')
    return new NoPrimaryError(`Two servers are out of recovery on timeline ${timeline}: ${names}.`, {
      code: 'two_primaries',
      hint: 'Stop the one that was not promoted; nothing is written until one is left.',
      details: { nodes: highest.map(({ name }) => name), timeline },
    })
  }
  const old = candidates[0]
  return new NoPrimaryError(
    old === undefined
      ? `No server that can be reached is out of recovery (${nodes.map(stateOf).join('; ')}).`
      : `Only ${old.name} is out of recovery, on timeline ${String(old.probe?.timeline)}, and timeline ${timeline} has been seen.`,
    {
      code: 'no_primary',
      retryable: true,
      hint: 'Promote a standby or start the primary; trunkline notices by itself.',
      details: { timeline },
    },
  )
}

function stateOf({ name, isReachable, probe, lastError }: Node): string {
  if (!isReachable) return `${name}: ${lastError === undefined ? 'not looked at yet' : messageOf(lastError)}`
  return `${name}: ${probe?.isStandby === true ? 'in recovery' : 'out of recovery'}`
}
