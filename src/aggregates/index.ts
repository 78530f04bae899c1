export {
  Aggregate,
  type AggregateState,
  type Decide,
  type Handled,
  type HandleOptions,
  type LoadOptions,
} from './aggregate.ts'
export {
  type AggregateOptions,
  type Decided,
  type Decider,
  type EventsDeclaration,
  hotMaxDefault,
  retriesMaxDefault,
  type StateCodec,
} from './aggregate-options.ts'
export { EventCatalog, type EventDefinition, type EventDefinitions, type PersonalDeclaration } from './event-catalog.ts'
export { EventError, type EventErrorCode } from './event-error.ts'
export { Events, type EventsOptions } from './events.ts'
export { type Forgotten, forgotten, isForgotten, type Personal } from './forgotten.ts'
export { Replay } from './replay.ts'
export type { SchemaIssue, SchemaResult, StandardSchema } from './standard-schema.ts'
export { type ForgetResult, subjectBytesMax } from './subject-keys.ts'
export {
  type AnyUpcaster,
  type CheckedUpcasters,
  type EventVersion,
  type UpcastEvent,
  upcaster,
  type Upcaster,
  type UpcastSource,
} from './upcaster.ts'
