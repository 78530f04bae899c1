export {
  type ConnectionUrlOptions,
  type EmbeddedPostgres,
  EmbeddedPostgresError,
  type EmbeddedPostgresErrorCode,
  type EmbeddedPostgresOptions,
  type EmbeddedPostgresVersion,
  type StopMode,
  startEmbeddedPostgres,
} from './embedded-postgres.ts'
export {
  type DeciderUnderTest,
  type ExpectedError,
  type ExpectedOutcome,
  type GivenStep,
  specify,
  type Specification,
  type WhenStep,
} from './given-when-then.ts'
export {
  type GivenEvent,
  type ProjectedStep,
  type ProjectionSpecification,
  type ProjectionSpecificationOptions,
  specifyProjection,
} from './projection-given-then.ts'
export type {
  SinkCapabilities,
  SinkContractCase,
  SinkContractOptions,
  SinkNetwork,
  SinkReceiver,
  SinkServer,
} from './sink-contract/contract.ts'
export { sinkContract } from './sink-contract/suite.ts'
