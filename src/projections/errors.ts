import { messageOf, TrunklineError } from '../core/index.ts'
import type { RecordedEvent } from '../events/index.ts'
import { isConnectionFailure, isLockContention, sqlStateOf } from '../postgres/index.ts'

/** What went wrong with an event in a projection. */
export type ProjectionErrorCode = 'projection_failed' | 'handler_timeout' | 'wrote_to_live' | 'transaction_ended'

/** The event that a projection could not handle. */
export type FailedEvent = Pick<RecordedEvent, 'type' | 'stream' | 'version' | 'position' | 'id'>

/** A projection could not handle an event; `code` says how, `cause` has what the handler threw. Nothing of it was written. */
export class ProjectionError extends TrunklineError {
  override readonly name = 'ProjectionError'
  declare readonly code: ProjectionErrorCode
  readonly projection: string
  readonly stream: string
  readonly version: number
  readonly position: string
  readonly eventType: string

  constructor(
    projection: string,
    event: FailedEvent,
    { code = 'projection_failed', cause, found, hint }: ProjectionFailure,
  ) {
    const { stream, version, position, type, id } = event
    super(
      `Projection "${projection}": event "${type}" of stream ${stream}, version ${version}, failed: ${found ?? messageOf(cause)}`,
      {
        code,
        retryable: isLockContention(cause) || (sqlStateOf(cause) !== undefined && isConnectionFailure(cause)),
        hint,
        details: { projection, stream, version, position, eventType: type, eventId: id },
        cause,
      },
    )
    this.projection = projection
    this.stream = stream
    this.version = version
    this.position = position
    this.eventType = type
  }
}

/** How an event failed. */
export interface ProjectionFailure {
  readonly code?: ProjectionErrorCode
  readonly cause?: unknown
  readonly found?: string
  readonly hint?: string
}

/** The projection did not reach a position in time. Retryable: it may reach it later. */
export class ProjectionTimeoutError extends TrunklineError {
  override readonly name = 'ProjectionTimeoutError'
  readonly projection: string
  /** What was waited for. */
  readonly position: string
  /** How far it is; undefined: there is no such projection yet. */
  readonly reached: string | undefined

  constructor(projection: string, position: string, reached: string | undefined, timeoutMs: number) {
    super(
      `Projection "${projection}" has not reached position ${position} in ${timeoutMs} ms; it is at ${reached ?? 'no position: it was never started'}.`,
      {
        code: 'projection_timeout',
        retryable: true,
        hint: 'See with `trunkline status` whether a process runs it, and whether an event fails.',
        details: { projection, position, reached, timeoutMs },
      },
    )
    this.projection = projection
    this.position = position
    this.reached = reached
  }
}

export const transactionEnded: ProjectionFailure = {
  code: 'transaction_ended',
  found: 'its handler has ended the transaction (COMMIT or ROLLBACK).',
  hint: 'Leave that to trunkline: throw to have it rolled back.',
}

/** The partition is somebody else's by now: whatever was begun is rolled back, and nothing is wrong. */
export class PartitionLost extends Error {}

/** What is in the way is somebody else's lock: the same may go through at once, and says nothing of the event. */
export function isContention(error: unknown): boolean {
  return isLockContention(error instanceof ProjectionError ? error.cause : error)
}

/** What a checkpoint that speaks of other events than those that are here is met with. */
export function otherHistory(projection: string, position: string): TrunklineError {
  return new TrunklineError(
    `Projection "${projection}" is at position ${position} of another history: the events that it was made of are not those that are here.`,
    {
      code: 'other_history',
      hint: `The event table was restored without the read model, it seems. Make it anew: trunkline projections rebuild ${projection}.`,
      details: { projection, position },
    },
  )
}
