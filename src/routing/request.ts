import type { PoolClient } from 'pg'
import type { Reason } from './decision.ts'
import type { Node } from './node.ts'
import type { RoutingSession } from './session.ts'
import type { Position } from './token.ts'

/** What a transaction asks for. */
export interface Request {
  readonly intent: 'read' | 'write'
  readonly label?: string | undefined
  readonly isSerializable?: boolean | undefined
  /** A replica must have replayed it. */
  readonly floor?: Position | undefined
  readonly session?: RoutingSession | undefined
  /** A replica may be this far behind, in milliseconds, where that is less than `maxLagMs`. */
  readonly maxLagMs?: number | undefined
  /** Connections that are not begun by us: on the primary those that cannot write. */
  readonly isGuarded?: boolean | undefined
  /** Where it failed before, and how. */
  readonly avoid?: ReadonlySet<Node> | undefined
  readonly again?: Reason | undefined
  /** Connections that the caller holds itself and cannot give back while it waits. */
  readonly held?: ((node: Node) => number) | undefined
}

/** A connection for one transaction. */
export interface Lease<Client = PoolClient> {
  readonly client: Client
  readonly node: Node
  readonly isPrimary: boolean
  /** Gives it back; with an error it is closed, and the server is blamed if it was its. Twice is harmless. */
  release(error?: Error): void
}
