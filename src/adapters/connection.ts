import { InvalidInputError } from '../core/index.ts'
import type { Queryable } from '../postgres/index.ts'
import { fromSlonik, isSlonikConnection, type SlonikConnection } from './slonik.ts'

/** What belongs to a transaction of the caller's: a pg client, pool client or pool, or a slonik pool, connection or transaction. */
export type Connection = Queryable | SlonikConnection

/** @throws InvalidInputError of the code given, when it is no connection. */
export function toQueryable(tx: Connection, user: string, code: string): Queryable {
  if (typeof tx !== 'object' || (tx as object | null) === null || typeof tx.query !== 'function') {
    throw new InvalidInputError(`${user} needs the connection of the transaction.`, {
      code,
      hint: 'Pass a pg client or pool, or a slonik connection.',
    })
  }
  return isSlonikConnection(tx) ? fromSlonik(tx) : tx
}
