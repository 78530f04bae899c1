import { expect, test } from 'vitest'
import { type SinkContractOptions, sinkContract } from '../../src/testing/index.ts'

/** Each case of the exported suite as a test of its own. */
export function runSinkContract(options: SinkContractOptions): void {
  for (const { name, run } of sinkContract(options)) {
    test(name, async () => expect(run()).resolves.toBe(undefined), 90_000)
  }
}

/** A delivery that is as it was, and too large. */
export function enlarged<Sent extends { readonly body: Buffer }>(delivery: Sent, bytes: number): Sent {
  return { ...delivery, body: Buffer.alloc(bytes, ' ') }
}
