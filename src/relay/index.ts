export { retryAfterMaxMs } from './backoff.ts'
export {
  type DeadLetter,
  type DeadLetterFilter,
  DeadLetters,
  deadLettersListMax,
  type DeadLetterWithChange,
} from './dead-letters.ts'
export type { FailedAttempt } from './deliverer.ts'
export type { Format } from './format.ts'
export { createFormat, type FormatName, type FormatOptions } from './formats/create-format.ts'
export { Relay, type RelayEvents } from './relay.ts'
export {
  type AfterDeadLetter,
  attemptsMaxDefault,
  concurrencyDefault,
  leaseMsDefault,
  type RelayOptions,
} from './relay-options.ts'
export { relayBehindMax, type RelayStatus, relayStatuses } from './relay-status.ts'
export { type Delivery, DeliveryError, type DeliveryErrorOptions, type DeliveryOutcome, type Sink } from './sink.ts'
