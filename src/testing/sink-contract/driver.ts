import { equal, ok } from 'node:assert/strict'
import { inspect } from 'node:util'
import { pause, withTimeout } from '../../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome, type Sink } from '../../relay/index.ts'
import { batchesOf } from './deliveries.ts'

/** What came of one call; one that rejects is of the same failure for all. */
export async function deliverOnce(
  sink: Sink,
  batch: readonly Delivery[],
  deliverMsMax: number,
  signal: AbortSignal = new AbortController().signal,
): Promise<readonly DeliveryOutcome[]> {
  const call = sink.deliver(batch, signal)
  const settled = withTimeout(call, deliverMsMax, () => new Unsettled(deliverMsMax))
  const outcomes = await settled.catch((error: unknown) => {
    if (error instanceof Unsettled) throw error
    ok(error instanceof DeliveryError, `deliver rejected with ${inspect(error)}, expected a DeliveryError`)
    return batch.map(() => error)
  })
  equal(outcomes.length, batch.length, 'one outcome for each delivery')
  return outcomes
}

class Unsettled extends Error {
  constructor(ms: number) {
    super(`deliver has not settled within ${ms} ms`)
  }
}

/** Delivers all of one lane as the relay does: in order, again from what failed until it is confirmed. */
export async function deliverAll(sink: Sink, deliveries: readonly Delivery[], deliverMsMax: number): Promise<void> {
  for (const batch of batchesOf(sink, deliveries)) {
    let rest: readonly Delivery[] = batch
    const deadline = performance.now() + 60_000
    while (rest.length > 0) {
      const outcomes = await deliverOnce(sink, rest, deliverMsMax)
      for (const outcome of outcomes) ok(outcome?.retryable !== false, `refused for good: ${outcome?.message}`)
      const failed = rest.filter((_, index) => outcomes[index] !== undefined)
      ok(
        failed.length === 0 || performance.now() < deadline,
        `not delivered within a minute: ${outcomes.find(Boolean)?.message}`,
      )
      if (failed.length > 0) await pause(20)
      rest = failed
    }
  }
}

/** Waits for a condition, with a deadline. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    ok(performance.now() < deadline, `expected that within 20,000 ms ${what}`)
    await pause(20)
  }
}

/** No text of an error, down to its causes, shows a secret. */
export function assertShowsNone(shown: unknown, secrets: readonly string[]): void {
  const text =
    typeof shown === 'string' ? shown : inspect(shown, { depth: 12, showHidden: true, maxStringLength: 5_000 })
  for (const secret of secrets) ok(!text.includes(secret), `a secret is shown in: ${text.replaceAll(secret, '<HERE>')}`)
}
