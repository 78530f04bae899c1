import type { CommonQueryMethods } from 'slonik'
import type { Queryable } from '../postgres/index.ts'

/** What trunkline uses of a slonik pool, connection or transaction. */
export type SlonikConnection = Pick<CommonQueryMethods, 'query' | 'oneFirst'>

/** True for a slonik pool, connection or transaction; a `pg` client has none of its result methods. */
export function isSlonikConnection(value: object): value is SlonikConnection {
  return 'query' in value && typeof value.query === 'function' && 'oneFirst' in value && 'anyFirst' in value
}

/** A slonik connection as a Queryable. Values are primitives; rows come as slonik's type parsers make them. */
export function fromSlonik(connection: SlonikConnection): Queryable {
  return {
    query: async (text, values = []) => {
      // Loaded when it is used: whoever has no slonik connection needs not wait for it.
      const { sql } = await import('slonik')
      const { parts, order } = split(text)
      const bound = order.map((index) => values[index - 1] as string | number | boolean | null)
      try {
        const result = await connection.query(sql.unsafe(parts, ...bound))
        return { rows: [...result.rows] as never[] }
      } catch (error) {
        throw driverError(error)
      }
    },
  }
}

/** `select $1, $2` as what a template literal would be: the texts between the placeholders, and their numbers. */
function split(text: string): { parts: TemplateStringsArray; order: number[] } {
  const pieces = text.split(/\$(\d+)/)
  const texts = pieces.filter((_, index) => index % 2 === 0)
  const order = pieces.filter((_, index) => index % 2 === 1).map(Number)
  const parts = Object.assign(texts, { raw: Object.freeze([...texts]) })
  return { parts: Object.freeze(parts), order }
}

/** slonik wraps the driver's error, whose SQLSTATE says what happened. */
function driverError(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? error.cause : error
}
