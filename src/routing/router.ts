import { type Logger, messageOf, pause } from '../core/index.ts'
import { toTrunklineError } from '../postgres/index.ts'
import { choose } from './balancer.ts'
import { type Decision, DecisionCounter, type Reason } from './decision.ts'
import {
  isNodeFailure,
  NoPrimaryError,
  ReplicaLagError,
  ReplicaUnavailableError,
  RoutingTimeoutError,
} from './errors.ts'
import { type Lane, pgLane } from './lane.ts'
import { Limiter } from './limiter.ts'
import { knowledge, type Node, probeTimeoutMs } from './node.ts'
import type { RoutingSettings } from './options.ts'
import { floorsOf, refuseLost, unfitPrimary } from './primary-check.ts'
import type { Lease, Request } from './request.ts'
import { laterOf, type Position } from './token.ts'
import type { Topology } from './topology.ts'

export interface RouterOptions {
  readonly settings: RoutingSettings
  readonly topology: Topology
  readonly logger: Logger
  readonly onDecision: (decision: Decision) => void
}

/** What pg-pool says when all connections are in use for too long: that is load, not a failure of the server. */
export const poolExhaustedText = 'timeout exceeded when trying to connect'

/** How a replica was found unfit for one read. */
type Refusal = 'node-failed' | 'not-reached' | 'other-timeline'

/**
 * Gives each transaction a connection to the server it belongs to.
 *
 * D1. A write gets the primary or an error. D2. A read gets a replica that is fit (N2) and, with a token, has shown on this very
 * connection to have replayed it, else what the fallback says. D3. Whatever is decided is told and counted, once.
 */
export class Router {
  readonly #options: RouterOptions
  readonly #fallbackPlaces: Limiter
  readonly counter: DecisionCounter = new DecisionCounter()

  constructor(options: RouterOptions) {
    this.#options = options
    this.#fallbackPlaces = new Limiter(options.settings.fallbackMax)
  }

  /** Reads that the primary is taking for want of a replica. */
  get fallbackReads(): number {
    return this.#fallbackPlaces.taken
  }

  async take(request: Request): Promise<Lease> {
    return this.takeFrom(pgLane, request)
  }

  /** The same with connections of another kind. */
  async takeFrom<Client extends object>(lane: Lane<Client>, request: Request): Promise<Lease<Client>> {
    try {
      if (request.intent === 'read') return await this.#read(lane, request)
      return await this.#takePrimary(lane, request, request.again ?? 'write')
    } catch (error) {
      this.decide({ request, node: undefined, reason: 'refused' })
      throw error
    }
  }

  /** @throws WriteLostError when a fail-over that is known here lost what is asked for. */
  refuseLost(wanted: Pick<Request, 'floor' | 'session'>): void {
    const { forks, timeline } = this.#options.topology
    refuseLost(forks, wanted, timeline)
  }

  /** Tells and counts a decision. */
  decide(decided: {
    readonly request: Request
    readonly node: Node | undefined
    readonly isPrimary?: boolean
    readonly reason: Reason
    readonly waitedMs?: number
  }): void {
    const { request, node, isPrimary = false, reason, waitedMs = 0 } = decided
    const decision: Decision = {
      intent: request.intent,
      target: node === undefined ? 'none' : isPrimary ? 'primary' : 'replica',
      node: node?.name,
      reason,
      label: request.label,
      waitedMs,
      lag: isPrimary ? undefined : node?.lag,
    }
    this.counter.add(decision)
    this.#options.onDecision(decision)
  }

  /** The server was found not to be the primary: nobody is sent there before it was looked at again. */
  async demote(node: Node): Promise<void> {
    const { topology, logger } = this.#options
    logger.warn(`${node.name} refuses to write: it is no primary any more. Looking for the new one.`)
    const { looks } = node
    const until = performance.now() + probeTimeoutMs
    for (const each of topology.nodes) each.look()
    while (node.looks === looks && performance.now() < until) await Promise.race([topology.changed(), pause(50)])
  }

  async #read<Client extends object>(lane: Lane<Client>, request: Request): Promise<Lease<Client>> {
    const { topology } = this.#options
    await request.session?.settled()
    const floor = floorOf(request)
    if (floor !== undefined && floor.timeline > topology.timeline) {
      // A promotion that has not been seen here yet.
      const seen = topology.changed()
      for (const node of topology.nodes) node.look()
      await Promise.race([seen, pause(probeTimeoutMs)])
    }
    const only = this.#primaryOnly(request)
    if (only !== undefined) return this.#takePrimary(lane, request, only)
    return this.#readReplica(lane, request, floor)
  }

  /** Why no replica comes into question, whatever the fallback says. */
  #primaryOnly(request: Request): Reason | undefined {
    const { topology } = this.#options
    if (topology.nodes.length === 1) return 'no-replicas'
    if (request.isSerializable === true) return 'serializable'
    if (request.session?.isPinned === true) return 'pinned'
    if (topology.timeline === 0) return undefined
    const isComparable = ({ systemId, timeline }: Position): boolean =>
      systemId === topology.systemId && timeline === topology.timeline
    return floorsOf(request).every(isComparable) ? undefined : 'other-timeline'
  }

  async #readReplica<Client extends object>(
    lane: Lane<Client>,
    request: Request,
    floor: Position | undefined,
  ): Promise<Lease<Client>> {
    const tried = new Set(request.avoid)
    const begun = performance.now()
    const { waitTimeoutMs } = this.#options.settings
    let refusal: Refusal | undefined
    for (;;) {
      const fit = this.#fit(request).filter((node) => !tried.has(node))
      const node = choose(mostRecent(fit, floor))
      if (node === undefined) break
      tried.add(node)
      const left = Math.max(0, begun + waitTimeoutMs - performance.now())
      const found = await this.#tryReplica(lane, node, { request, floor, patienceMs: left / fit.length })
      if (typeof found === 'string') {
        refusal = found
        continue
      }
      const waitedMs = floor === undefined ? 0 : performance.now() - begun
      this.decide({ request, node, reason: request.again ?? (floor === undefined ? 'replica' : 'token'), waitedMs })
      return found
    }
    return this.#fallBack(lane, request, this.#reasonOf(refusal))
  }

  #fit(request: Request): Node[] {
    const { topology } = this.#options
    const { maxLagMs } = request
    return topology.replicas().filter((node) => {
      if (topology.unfit(node) !== undefined) return false
      return maxLagMs === undefined || (node.lag !== undefined && node.lag.ms <= maxLagMs)
    })
  }

  #reasonOf(refusal: Refusal | undefined): Reason {
    const { topology } = this.#options
    if (refusal === 'not-reached') return 'token-not-reached'
    if (refusal === 'other-timeline') return 'other-timeline'
    const reachable = topology.replicas().filter((node) => node.isReachable && node.misfit === undefined)
    if (refusal === 'node-failed' || reachable.length === 0) return 'unavailable'
    return reachable.some((node) => topology.unfit(node) === 'other-timeline') ? 'other-timeline' : 'lagging'
  }

  /** A connection to the replica that may be read, or why not. */
  async #tryReplica<Client extends object>(
    lane: Lane<Client>,
    node: Node,
    { request, floor, patienceMs }: { request: Request; floor: Position | undefined; patienceMs: number },
  ): Promise<Lease<Client> | Refusal> {
    let lease: Lease<Client>
    try {
      lease = await this.#connect(lane, request, { node, isPrimary: false })
    } catch (error) {
      this.#options.logger.debug(`No connection to ${node.name}: ${messageOf(error)}`)
      return 'node-failed'
    }
    try {
      const timeline = node.probe?.timeline ?? 0
      const found = await lane.verify(lease.client, { floor, timeline, patienceMs })
      if (found === 'reached') return lease
      if (found === 'promoted') node.look()
      lease.release(found === 'promoted' ? new Error(`${node.name} is no standby any more`) : undefined)
      return found === 'promoted' ? 'node-failed' : found
    } catch (error) {
      lease.release(error as Error)
      return 'node-failed'
    }
  }

  async #fallBack<Client extends object>(lane: Lane<Client>, request: Request, reason: Reason): Promise<Lease<Client>> {
    const { fallback } = this.#options.settings
    if (fallback === 'primary') return this.#takePlaceOnPrimary(lane, request, reason)
    if (fallback === 'stale') {
      const lease = await this.#takeStale(lane, request)
      if (lease !== undefined) return lease
    }
    const states = this.#options.topology
      .replicas()
      .map((node) => `${node.name} ${this.#options.topology.unfit(node) ?? reason}`)
    const options = { retryable: true, details: { reason, replicas: states } }
    if (reason === 'unavailable') {
      throw new ReplicaUnavailableError(`No replica can be read (${states.join(', ')}).`, {
        ...options,
        code: 'no_replica',
        hint: 'Try again, or take fallback: "primary".',
      })
    }
    throw new ReplicaLagError(`No replica is recent enough for this read: ${reason} (${states.join(', ')}).`, {
      ...options,
      code: 'replica_lag',
      hint: 'Try again, raise waitTimeoutMs or maxLagMs, or take fallback: "primary".',
    })
  }

  /** Of the replicas that answer the one that is least behind. */
  async #takeStale<Client extends object>(lane: Lane<Client>, request: Request): Promise<Lease<Client> | undefined> {
    const { topology } = this.#options
    const tolerable = new Set([undefined, 'lagging', 'other-timeline'])
    const nodes = topology
      .replicas()
      .filter((node) => tolerable.has(topology.unfit(node)) && request.avoid?.has(node) !== true)
      .toSorted((a, b) => Number((b.probe?.lsn ?? 0n) - (a.probe?.lsn ?? 0n)))
    for (const node of nodes) {
      const found = await this.#tryReplica(lane, node, { request, floor: undefined, patienceMs: 0 })
      if (typeof found === 'string') continue
      this.decide({ request, node, reason: 'stale' })
      return found
    }
    return undefined
  }

  async #takePlaceOnPrimary<Client extends object>(
    lane: Lane<Client>,
    request: Request,
    reason: Reason,
  ): Promise<Lease<Client>> {
    const { acquireTimeoutMs, fallbackMax } = this.#options.settings
    if (!(await this.#fallbackPlaces.enter(acquireTimeoutMs))) {
      throw new RoutingTimeoutError(
        `The primary takes at most ${fallbackMax} reads at a time for want of a replica (${reason}), and none ended within ${acquireTimeoutMs} ms.`,
        { code: 'fallback_overloaded', retryable: true, hint: 'Mend the replicas, or raise routing.fallbackMax.' },
      )
    }
    try {
      const lease = await this.#takePrimary(lane, request, reason)
      let isReleased = false
      return {
        ...lease,
        release: (error) => {
          if (!isReleased) this.#fallbackPlaces.leave()
          isReleased = true
          lease.release(error)
        },
      }
    } catch (error) {
      this.#fallbackPlaces.leave()
      throw error
    }
  }

  async #takePrimary<Client extends object>(
    lane: Lane<Client>,
    request: Request,
    reason: Reason,
  ): Promise<Lease<Client>> {
    const { acquireTimeoutMs } = this.#options.settings
    const until = performance.now() + acquireTimeoutMs
    for (;;) {
      const node = await this.#untilPrimary(until, request)
      let failure: unknown
      try {
        const lease = await this.#connect(lane, request, { node, isPrimary: true })
        const unfit = await this.#checkPrimary(lane, request, lease)
        if (unfit === undefined) {
          this.decide({ request, node, isPrimary: true, reason })
          return lease
        }
        if (unfit === 'standby') await this.demote(node)
        failure = unfit === 'standby' ? this.#options.topology.refusal : notPromoted(request, node)
      } catch (error) {
        node.look()
        if (!isNodeFailure(error)) throw toTrunklineError(error, `Connecting to ${node.name}`)
        failure = toTrunklineError(error, `Connecting to ${node.name}`)
      }
      if (performance.now() >= until) throw failure
      // Perhaps another one is the primary by the next look.
      await Promise.race([this.#options.topology.changed(), pause(100)])
    }
  }

  /** Why this connection is none to a primary that has what is asked for; then it was given back. */
  async #checkPrimary<Client extends object>(
    lane: Lane<Client>,
    request: Request,
    lease: Lease<Client>,
  ): Promise<'standby' | 'older' | undefined> {
    const { topology, settings } = this.#options
    try {
      const floors = request.intent === 'write' ? [] : floorsOf(request)
      const isUncertain = request.session?.pinnedTimeline !== undefined
      const check = { topology, floors, isUncertain, timeoutMs: settings.acquireTimeoutMs }
      const unfit = await unfitPrimary(lane, lease, check)
      const timeline = Math.max(topology.timeline, knowledge(lease.client).written ?? 0)
      if (unfit === undefined) refuseLost(topology.forks, request, timeline)
      else lease.release(new Error(`${lease.node.name} is in recovery or of an older timeline`))
      return unfit
    } catch (error) {
      lease.release(isNodeFailure(error) ? (error as Error) : undefined)
      throw error
    }
  }

  /** Fails when the time is over before a primary is known. */
  async #untilPrimary(until: number, request: Request): Promise<Node> {
    const { topology } = this.#options
    for (;;) {
      const { primary } = topology
      // One of an older timeline than the token's lacks what the token stands for: the new one is only not known here yet.
      const timeline = primary?.probe?.timeline ?? 0
      const isOlder = floorsOf(request).some(
        (floor) => floor.systemId === topology.systemId && floor.timeline > timeline,
      )
      if (primary !== undefined && !isOlder) return primary
      const leftMs = until - performance.now()
      if (leftMs <= 0) throw primary === undefined ? topology.refusal : notPromoted(request, primary)
      if (isOlder) for (const node of topology.nodes) node.look()
      await Promise.race([topology.changed(), pause(Math.min(leftMs, 250))])
    }
  }

  async #connect<Client extends object>(
    lane: Lane<Client>,
    request: Request,
    { node, isPrimary }: { readonly node: Node; readonly isPrimary: boolean },
  ): Promise<Lease<Client>> {
    const isGuarded = isPrimary && request.isGuarded === true
    const max = lane.max(node, isGuarded)
    if ((request.held?.(node) ?? 0) >= max) {
      throw new RoutingTimeoutError(
        `The caller itself holds all ${max} connections to ${node.name} and waits for one more.`,
        {
          code: 'self_deadlock',
          hint: 'Raise routing.poolSizeMax, or leave requiresNew out.',
        },
      )
    }
    node.open += 1
    node.breaker.enter()
    try {
      const client = await lane.connect(node, isGuarded)
      return leaseOf(lane, client, { node, isPrimary })
    } catch (error) {
      node.open -= 1
      if (messageOf(error) === poolExhaustedText) {
        node.breaker.abandon()
        throw new RoutingTimeoutError(`All ${max} connections to ${node.name} were in use for too long.`, {
          code: 'pool_exhausted',
          retryable: true,
          hint: 'Raise routing.poolSizeMax or acquireTimeoutMs, or shorten the transactions.',
          cause: error,
        })
      }
      node.breaker.fail()
      throw error
    }
  }
}

function leaseOf<Client extends object>(
  lane: Lane<Client>,
  client: Client,
  { node, isPrimary }: { readonly node: Node; readonly isPrimary: boolean },
): Lease<Client> {
  let isReleased = false
  return {
    client,
    node,
    isPrimary,
    release(error) {
      if (isReleased) return
      isReleased = true
      node.open -= 1
      if (error !== undefined && isNodeFailure(error)) node.breaker.fail()
      else node.breaker.succeed()
      lane.release(node, client, error)
    },
  }
}

/** What a read must have, by its own token and its session's. */
function floorOf({ floor, session }: Request): Position | undefined {
  return floor === undefined ? session?.floor : laterOf(session?.floor, floor)
}

function notPromoted(request: Request, { name, probe }: Node): ReplicaLagError | NoPrimaryError {
  const timeline = floorsOf(request).reduce((highest, floor) => Math.max(highest, floor.timeline), 0)
  const message = `The token is of timeline ${timeline}; the only primary known, ${name}, is on ${String(probe?.timeline)}.`
  const options = { retryable: true, hint: 'Try again: a promotion is not seen yet from here.' }
  return request.intent === 'read'
    ? new ReplicaLagError(message, { code: 'replica_lag', ...options })
    : new NoPrimaryError(message, { code: 'no_primary', ...options })
}

/** Those known to have the position; where there is none, those that are furthest. */
function mostRecent(nodes: Node[], floor: Position | undefined): Node[] {
  if (floor === undefined || nodes.length < 2) return nodes
  const reached = nodes.filter(({ probe }) => (probe?.lsn ?? 0n) >= floor.lsn)
  if (reached.length > 0) return reached
  const furthest = nodes.reduce((most, { probe }) => ((probe?.lsn ?? 0n) > most ? (probe?.lsn ?? 0n) : most), 0n)
  return nodes.filter(({ probe }) => probe?.lsn === furthest)
}
