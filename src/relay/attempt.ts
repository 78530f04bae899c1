import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome, type Sink } from './sink.ts'

/** Longest error message that is stored, in characters. */
const errorMessageMax = 2_000

/** One call of a sink. Whatever it does, there is an outcome for each delivery. */
export async function attempt(
  sink: Sink,
  batch: readonly Delivery[],
  signal: AbortSignal,
): Promise<readonly DeliveryOutcome[]> {
  try {
    const outcomes = await sink.deliver(batch, signal)
    if (outcomes.length === batch.length) return outcomes.map(toOutcome)
    const error = new DeliveryError(`${sink.name} gave ${outcomes.length} outcomes for ${batch.length} deliveries.`, {
      code: 'sink_contract',
      retryable: true,
      hint: 'Sink.deliver resolves with one outcome for each delivery.',
    })
    return batch.map(() => error)
  } catch (error) {
    const failure = toDeliveryError(error)
    return batch.map(() => failure)
  }
}

/** What a sink gives that is no DeliveryError would fail far from here; one of another copy of this package is as good as ours. */
function toOutcome(outcome: unknown): DeliveryError | undefined {
  return outcome === undefined ? undefined : toDeliveryError(outcome)
}

/** A sink rejects when nothing can be said of any delivery: it may work later. */
function toDeliveryError(error: unknown): DeliveryError {
  if (error instanceof DeliveryError) return error
  const code =
    error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'delivery_failed'
  const { retryable, retryAfterMs } = (error instanceof Error ? error : {}) as Partial<
    Record<keyof DeliveryError, unknown>
  >
  return new DeliveryError(messageOf(error), {
    code,
    retryable: retryable !== false,
    retryAfterMs: typeof retryAfterMs === 'number' ? retryAfterMs : undefined,
    cause: error,
  })
}

/** A text that the database takes, of a bounded length. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\uFFFD').slice(0, errorMessageMax)
}
