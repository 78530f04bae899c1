import { type ArrivalCheck } from './arrivals.ts'
import { type Percentiles } from './latencies.ts'

/**
 * What the demo tells while it runs. With --json each is one line, so the names are for programs; times are
 * milliseconds.
 */
export type DemoEvent =
  | ServerEvent
  | LoadedEvent
  | InstanceEvent
  | ChangeEvent
  | FaultEvent
  | CheckEvent
  | DeliveriesEvent
  | OrderCheckEvent
  | DifferenceEvent
  | ViolationEvent
  | KilledEvent
  | WarningEvent
  | NoteEvent
  | ResultEvent

interface ServerEvent {
  readonly event: 'server'
  readonly version: string
  readonly port: number
  readonly startMs: number
}

interface LoadedEvent {
  readonly event: 'loaded'
  readonly rows: Readonly<Record<string, number>>
  readonly loadMs: number
}

/** An instance has its tables. The figures are those of the largest one. */
interface InstanceEvent {
  readonly event: 'instance'
  readonly instance: number
  readonly pid: number
  readonly isRestart: boolean
  readonly table: string
  readonly rows: number
  readonly copyMs: number
  readonly rowsPerSecond: number
  readonly bytesPerRow: number
}

/** A transaction has ended, and every instance had the time to show it. */
export interface ChangeEvent {
  readonly event: 'change'
  readonly revision: number
  readonly what: string
  readonly size: 'small' | 'bulk'
  readonly end: 'commit' | 'rollback'
  readonly rows: number
  readonly commitMs: number
  /** From sending COMMIT until it is visible, by instance; empty after a rollback. */
  readonly visibleMs: readonly InstanceLatency[]
}

export interface InstanceLatency {
  readonly instance: number
  /** Null: not within the time that the demo waits. */
  readonly ms: number | null
}

export type FaultName = 'listeners-terminated' | 'instance-killed' | 'database-restarted' | 'receiver-killed'

interface FaultEvent {
  readonly event: 'fault'
  readonly fault: FaultName
  readonly what: string
  /** Until all instances had what was committed during the fault. */
  readonly recoveredMs: number
  readonly details: Readonly<Record<string, number>>
}

interface CheckEvent {
  readonly event: 'check'
  readonly after: string
  readonly instances: number
  readonly rows: number
  readonly differences: number
  readonly checkMs: number
  /** One digest of each table, the same in all instances when there are no differences. */
  readonly digests: Readonly<Record<string, string>>
}

/** How far the relays are with the orders, told every few seconds. */
export interface DeliveriesEvent {
  readonly event: 'deliveries'
  readonly webhook: DeliveryFigures
  readonly file: DeliveryFigures
}

export interface DeliveryFigures {
  /** Orders that arrived. */
  readonly orders: number
  /** Arrivals beyond the first of an order: what a fault repeats. */
  readonly repeated: number
  /** From COMMIT to arrival, of orders that were written and arrived while nothing was broken. */
  readonly ms: Percentiles
}

/** Every order was looked for at the webhook, in the file, and with the consumer, who bills each once. */
export interface OrderCheckEvent {
  readonly event: 'order-check'
  readonly after: string
  readonly orders: number
  readonly rollbacks: number
  readonly webhook: ArrivalCheck & { readonly repeated: number }
  readonly file: ArrivalCheck & { readonly repeated: number }
  readonly billed: {
    readonly orders: number
    /** Orders that were not billed exactly once, and billed ones that do not exist. */
    readonly wrong: number
    /** Orders that were billed after a later one of their customer. */
    readonly outOfOrder: number
  }
  /** All that must be 0, together. A repeated arrival is none. */
  readonly differences: number
  readonly checkMs: number
}

export function isOfOrders(event: DemoEvent): event is DeliveriesEvent | OrderCheckEvent {
  return event.event === 'deliveries' || event.event === 'order-check'
}

interface DifferenceEvent {
  readonly event: 'difference'
  readonly instance: number
  readonly table: string
  readonly key: string
  readonly expected: string | null
  readonly found: string | null
}

interface ViolationEvent {
  readonly event: 'violation'
  readonly instance: number
  readonly revision: number
  readonly what: string
}

interface KilledEvent {
  readonly event: 'killed'
  readonly instance: number
  readonly pid: number
}

/** What trunkline logged in an instance, as it does when its connections are broken. */
interface WarningEvent {
  readonly event: 'warning'
  readonly instance: number
  readonly text: string
}

interface NoteEvent {
  readonly event: 'note'
  readonly text: string
}

/** All that was measured. */
export interface ResultEvent {
  readonly event: 'result'
  readonly isEqual: boolean
  readonly postgres: string
  readonly instances: number
  readonly rows: number
  /** Medians of the instances, of the largest table. */
  readonly copyMs: number
  readonly rowsPerSecond: number
  readonly bytesPerRow: number
  readonly transactions: number
  readonly rollbacks: number
  readonly rowsWritten: number
  /** From COMMIT to visible, over all instances; transactions of a few rows. */
  readonly latencyMs: Percentiles
  /** The same of bulk updates. */
  readonly bulkLatencyMs: Percentiles
  /** Orders that were committed, each delivered to a webhook and a file and billed once. */
  readonly orders: number
  /** From COMMIT to arrival. */
  readonly webhook: DeliveryFigures
  readonly file: DeliveryFigures
  readonly faults: number
  readonly checks: number
  readonly differences: number
  readonly violations: number
  readonly elapsedMs: number
}
