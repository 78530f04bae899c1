import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import type { Deadline } from './deadline.ts'

/**
 * Sends deliveries: those of a key one after the other, each after the one before is confirmed, and the keys side by side.
 * What comes after a failure in its key is not sent (S2).
 *
 * @param send resolves when the receiver has confirmed; what it throws is the outcome.
 */
export async function deliverByKey(
  batch: readonly Delivery[],
  deadline: Deadline,
  send: (delivery: Delivery) => Promise<void>,
): Promise<DeliveryOutcome[]> {
  const outcomes: DeliveryOutcome[] = Array.from({ length: batch.length })
  await Promise.all(
    lanesOf(batch).map(async (lane) => {
      let failed = false
      for (const index of lane) {
        const delivery = batch[index]
        if (delivery === undefined) continue
        if (failed || deadline.isClosing) {
          outcomes[index] = notAttempted(failed)
          continue
        }
        try {
          await send(delivery)
        } catch (error) {
          failed = true
          outcomes[index] = toDeliveryError(error)
        }
      }
    }),
  )
  return outcomes
}

/** Indexes of a batch by key; each delivery without a key by itself. */
function lanesOf(batch: readonly Delivery[]): number[][] {
  const lanes: number[][] = []
  const byKey = new Map<string, number[]>()
  for (const [index, { key }] of batch.entries()) {
    const known = key === null ? undefined : byKey.get(key)
    if (known === undefined) {
      const lane = [index]
      lanes.push(lane)
      if (key !== null) byKey.set(key, lane)
    } else {
      known.push(index)
    }
  }
  return lanes
}

export function notAttempted(afterFailure: boolean): DeliveryError {
  const why = afterFailure ? 'an earlier one of its key failed' : 'the time of the call was over'
  return new DeliveryError(`Not sent: ${why}.`, { code: 'not_attempted', retryable: true })
}

/** Anything thrown that no sink has a word for: it may work later. */
export function toDeliveryError(error: unknown): DeliveryError {
  if (error instanceof DeliveryError) return error
  return new DeliveryError(messageOf(error), { code: 'delivery_failed', retryable: true, cause: error })
}
