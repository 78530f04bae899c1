import type { SinkContractCase, SinkContractOptions } from './contract.ts'
import { deliveryCases } from './delivery-cases.ts'
import { faultCases } from './fault-cases.ts'
import { lifeCases } from './life-cases.ts'

/**
 * What every sink must keep (S1 to S5 of `Sink`), as cases for any test runner:
 *
 *     for (const { name, run } of sinkContract({ open, has: { network: true }, deliverMsMax: 3_000 })) test(name, run)
 *
 * Each opens a receiver of its own and takes at most about a minute. They assert with node:assert, so no runner is asked for.
 */
export function sinkContract(options: SinkContractOptions): readonly SinkContractCase[] {
  const has = options.has ?? {}
  return [...lifeCases(has), ...deliveryCases(has), ...faultCases(has)].map(({ name, run }) => ({
    name,
    run: async () => {
      const receiver = await options.open()
      try {
        await run(receiver, options)
      } finally {
        await receiver.close()
      }
    },
  }))
}
