import { setTimeout as delay } from 'node:timers/promises'
import { inspect } from 'node:util'

export interface EventuallyOptions {
  /** The deadline. Default 10,000 ms, far above what a passing test needs. */
  readonly timeoutMs?: number
  /** Pause between two looks. Default 10 ms. */
  readonly intervalMs?: number
  /** The condition in words, for the message of a failure. */
  readonly what?: string
}

const TIMED_OUT = Symbol('timed out')

/**
 * Looks at a condition until it holds and returns its value.
 *
 * @param condition holds when it returns something truthy; an error means "not yet".
 * @throws at the deadline, also when the condition itself hangs, with the last value or error.
 */
export async function eventually<Value>(
  condition: () => Value | Promise<Value>,
  { timeoutMs = 10_000, intervalMs = 10, what = 'the condition holds' }: EventuallyOptions = {},
): Promise<Value> {
  const deadline = Date.now() + timeoutMs
  let last: Look<Value> | undefined
  while (Date.now() < deadline) {
    const look = await Promise.race([attempt(condition), delay(deadline - Date.now(), TIMED_OUT, { ref: false })])
    if (look === TIMED_OUT) break
    last = look
    if ('value' in look && look.value) return look.value
    await delay(intervalMs)
  }
  const cause = last !== undefined && 'error' in last ? last.error : undefined
  throw new Error(`Expected that within ${timeoutMs} ms ${what}; last ${describeLook(last)}.`, { cause })
}

/** The same for assertions: passes when the callback no longer throws. */
export async function eventuallyPasses(
  assertion: () => void | Promise<void>,
  options?: EventuallyOptions,
): Promise<void> {
  await eventually(async () => {
    await assertion()
    return true
  }, options)
}

/** What one look at a condition gave. */
type Look<Value> = { readonly value: Value } | { readonly error: unknown }

async function attempt<Value>(condition: () => Value | Promise<Value>): Promise<Look<Value>> {
  try {
    return { value: await condition() }
  } catch (error) {
    return { error }
  }
}

function describeLook(look: Look<unknown> | undefined): string {
  if (look === undefined) return 'it did not answer'
  return 'value' in look ? `it was ${inspect(look.value)}` : `it failed with ${inspect(look.error)}`
}
