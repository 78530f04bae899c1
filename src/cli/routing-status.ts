import { type Logger, messageOf } from '../core/index.ts'
import { type NodeStatus, Routing } from '../routing/index.ts'
import type { CommandContext } from './context.ts'
import { textOfBytes, textTable } from './table.ts'

/** Where a read would go now, and why: found out by sending one. */
export interface ReadDecision {
  readonly intent: 'read'
  readonly target: string
  readonly node: string | null
  readonly reason: string
}

/** The servers as a process with these replicas sees them, and one decision of the router. */
export interface RoutingReport {
  readonly nodes: readonly NodeStatus[]
  readonly decision: ReadDecision
}

/** What looks at the primary and its replicas; undefined where none is configured. @throws what is wrong with the URLs, at once. */
export function routingReport(context: CommandContext): (() => Promise<RoutingReport>) | undefined {
  const { replicaUrls, logger } = context
  if (replicaUrls.length === 0) return undefined
  const pool = context.pool()
  const routing = new Routing({ primary: pool.options, pool, replicas: replicaUrls, logger, ...context.routing })
  return async () => look(routing, logger)
}

async function look(routing: Routing, logger: Logger): Promise<RoutingReport> {
  let decision: ReadDecision = { intent: 'read', target: 'none', node: null, reason: 'refused' }
  routing.on('decision', ({ target, node, reason }) => {
    decision = { intent: 'read', target, node: node ?? null, reason }
  })
  try {
    await routing.start()
    await routing.read(async (tx) => tx.query('select'), { timeoutMs: 10_000, label: 'trunkline status' })
    return { nodes: routing.status().nodes, decision }
  } catch (error) {
    logger.warn(`A read would fail: ${messageOf(error)}`)
    return { nodes: routing.status().nodes, decision }
  } finally {
    await routing.stop()
  }
}

export function textOfNodes(nodes: readonly NodeStatus[]): string {
  return textTable(
    ['SERVER', 'ROLE', 'STATE', 'TIMELINE', 'LSN', 'LAG', 'LOOK'],
    nodes.map((node) => [
      node.name,
      node.role,
      node.reason === undefined ? node.state : `${node.state}: ${node.reason}`,
      node.timeline === undefined ? '-' : String(node.timeline),
      node.lsn ?? '-',
      node.lagBytes === undefined ? '-' : `${textOfBytes(BigInt(node.lagBytes))}, ${Math.round(node.lagMs ?? 0)} ms`,
      node.latencyMs === undefined ? '-' : `${node.latencyMs.toFixed(1)} ms`,
    ]),
  )
}

export function textOfDecision({ target, node, reason }: ReadDecision): string {
  return node === null ? `A read fails: ${reason}` : `A read goes to the ${target} ${node}: ${reason}`
}
