import { messageOf } from '../core/index.ts'
import type { Change } from '../log/index.ts'
import { type Delivery, DeliveryError } from './sink.ts'

/** The format cannot write it: no attempt can mend that. */
export function notEncoded(error: unknown): DeliveryError {
  return new DeliveryError(`The delivery cannot be made: ${messageOf(error)}.`, {
    code: 'encode_failed',
    hint: 'Mend the format (or the event), then redrive the dead letter.',
    cause: error,
  })
}

/** Each process that attempted it alone died of it, or of something else at that moment. */
export function processDied(attempts: number): DeliveryError {
  return new DeliveryError(`Processes died while they attempted it, ${attempts} attempts in all.`, {
    code: 'process_died',
    hint: 'Look for what ended them (memory, a bug in the sink), then redrive or discard it.',
  })
}

/** Stands for one that was never written. */
export function bareDelivery(change: Change): Delivery {
  return {
    messageId: change.messageId,
    destination: change.topic,
    key: change.key,
    headers: {},
    contentType: 'application/json',
    body: Buffer.alloc(0),
    change,
  }
}
