export { breakerFailuresMax, type BreakerState } from './breaker.ts'
export type { Decision, DecisionCount, Reason } from './decision.ts'
export {
  CommitOutcomeUnknownError,
  NoPrimaryError,
  ReadOnlyTransactionError,
  RecoveryConflictError,
  ReplicaLagError,
  ReplicaUnavailableError,
  RoutingTimeoutError,
  TransactionAbortedError,
  WriteLostError,
} from './errors.ts'
export {
  type Carrier,
  carrierNameDefault,
  type CarrierOptions,
  type FastifyLike,
  type HonoContextLike,
  maxAgeSDefault,
  type RequestHeaders,
} from './http.ts'
export { Routing, type RoutingEvents, type RoutingStatus, type TransactionFunction } from './routing.ts'
export {
  acquireTimeoutMsDefault,
  type Fallback,
  fallbackMaxDefault,
  healthIntervalMsDefault,
  maxLagBytesDefault,
  maxLagMsDefault,
  poolSizeMaxDefault,
  type ReplicaOptions,
  replicaUrlsFromEnvironment,
  type RoutingOptions,
  timeoutMsDefault,
  waitTimeoutMsDefault,
  weightDefault,
} from './options.ts'
export { RoutingSession } from './session.ts'
export type { RoutedSlonik, SlonikReadOptions, SlonikTransactionFunction, SlonikWriteOptions } from './slonik.ts'
export type { NodeStatus } from './status.ts'
export type { Unfit } from './topology.ts'
export type { RoutedTransaction, Statement } from './transaction.ts'
export type { IsolationLevel, ReadOptions, TransactionOptions, WriteOptions, Written } from './transaction-options.ts'
