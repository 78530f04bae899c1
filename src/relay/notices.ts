import type { Change } from '../log/index.ts'
import type { FailedAttempt } from './deliverer.ts'
import type { CheckedRelayOptions } from './relay-options.ts'
import type { Delivery, DeliveryError } from './sink.ts'

/** Whom a running relay tells what. */
export interface RelayRunEvents {
  readonly delivered: (delivery: Delivery) => void
  readonly failed: (failed: FailedAttempt) => void
  readonly passedOver: (change: Change) => void
  readonly slots: (slots: readonly number[]) => void
  readonly error: (error: Error) => void
}

/** What is logged as well as told. */
export interface Notices {
  readonly failed: (failed: FailedAttempt) => void
  readonly outage: (error: DeliveryError) => void
  readonly recovered: () => void
}

export function noticesOf({ name, sink, logger }: CheckedRelayOptions, events: RelayRunEvents): Notices {
  return {
    failed(failed) {
      const { attempts, delivery, error } = failed
      if (failed.isDead) {
        logger.error(`The relay ${name} gives a delivery up after ${attempts} attempts: ${error.message}`, {
          messageId: delivery.messageId,
          destination: delivery.destination,
        })
      }
      events.failed(failed)
    },
    outage(error) {
      logger.warn(`The relay ${name} cannot reach ${sink.name}, it goes on trying: ${error.message}`)
      events.error(error)
    },
    recovered() {
      logger.info(`The relay ${name} reaches ${sink.name} again.`)
    },
  }
}
