import { quoteIdentifier } from '../postgres/index.ts'
import type { RoundStatement } from './round.ts'
import type { TableSubscription } from './table-subscription.ts'

/** Asks for the fingerprints of followed tables: oid and fingerprint of each that there is. */
export function structureStatement(schema: string, subscriptions: readonly TableSubscription[]): RoundStatement {
  const oids = subscriptions.flatMap(({ table }) => table?.oid ?? [])
  return {
    name: 'trunkline_structure',
    text: `select o::text, ${quoteIdentifier(schema)}.table_fingerprint(o::oid) from unnest($3) as o`,
    values: [0n, 0n, [...new Set(oids)].map(BigInt), 0],
  }
}
