import type { Delivery, Sink } from '../../relay/index.ts'

/** The network between a sink and its receiver, in the hands of the suite: a TCP proxy. */
export interface SinkNetwork {
  /** Connections of sinks that are open now. */
  readonly connectionCount: number
  /** Resets all connections; new ones are accepted. */
  reset(): void
  /** Resets all connections and refuses new ones, until `resume`. */
  cut(): void | Promise<void>
  /** Keeps connections, but forwards nothing, until `resume`. */
  stall(): void | Promise<void>
  resume(): void | Promise<void>
}

/** The receiver itself, to be stopped and started with what it has confirmed. */
export interface SinkServer {
  stop(): Promise<void>
  start(): Promise<void>
}

/**
 * A place that a sink delivers to (a topic, a queue, a file) with nothing in it. The suite asks for one in each case and closes
 * it after. What a receiver does not have, it leaves undefined: the cases that need it are left out.
 */
export interface SinkReceiver {
  /** Makes a sink that delivers here, over `network` where there is one. Nothing is connected before its start. */
  createSink(): Sink
  /** Bodies that are held here for consumers, in the order of arrival (at least within each key). */
  received(): Promise<readonly Buffer[]>
  /** Removes the place. Every sink is stopped by then. */
  close(): Promise<void>
  readonly network?: SinkNetwork | undefined
  readonly server?: SinkServer | undefined
  /** Turns a delivery into one that the receiver refuses for good: too large, say. */
  readonly refused?: ((delivery: Delivery) => Delivery) | undefined
}

export interface SinkContractOptions {
  /** Makes a receiver for one case. */
  readonly open: () => Promise<SinkReceiver>
  /** What the receivers have; the cases are listed before one is made. Default: nothing. */
  readonly has?: SinkCapabilities | undefined
  /**
   * Milliseconds in which `deliver` of these sinks settles whatever happens: give the sinks under test a short time limit
   * (1,000, say) and name here what their whole call may take.
   */
  readonly deliverMsMax: number
  /** Texts of the sink's URL and options that no name, message or log may show. */
  readonly secrets?: readonly string[] | undefined
}

export interface SinkCapabilities {
  readonly network?: boolean | undefined
  readonly server?: boolean | undefined
  readonly refused?: boolean | undefined
}

/** One case: a name, and what to run. It throws an AssertionError when the sink breaks its contract. */
export interface SinkContractCase {
  readonly name: string
  readonly run: () => Promise<void>
}

/** A case of the suite, before it has its receiver. */
export interface ReceiverCase {
  readonly name: string
  readonly run: (receiver: SinkReceiver, options: SinkContractOptions) => Promise<void>
}
