export type { RebuildOptions } from './builder.ts'
export { ProjectionError, type ProjectionErrorCode, ProjectionTimeoutError } from './errors.ts'
export type { HandlerContext, ProjectedEvent, ProjectionHandler, ProjectionHandlers } from './handler.ts'
export { type ParkedEvent, ParkedEvents, type ParkedFilter, parkedListMax } from './parked-events.ts'
export {
  batchSizeDefault,
  batchSizeMax,
  type CreateTable,
  handlerTimeoutMsDefault,
  parkedMaxDefault,
  partitionsMax,
  projectionAttemptsMaxDefault,
  projectionLeaseMsDefault,
  projectionLeaseMsMin,
  type ProjectionOptions,
} from './projection-options.ts'
export {
  type BuildStatus,
  type ProjectionFailure,
  projectionLagMax,
  type ProjectionStatus,
  projectionStatuses,
} from './projection-status.ts'
export { Projection, type ReachedOptions, reachedTimeoutMsDefault } from './projection.ts'
// For the test kit.
export { rehearse } from './rehearsal.ts'
export { Projections, type ProjectionsOptions } from './projections.ts'
