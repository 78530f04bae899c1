import pg from 'pg'

/** An identifier in double quotes, as SQL takes it. */
export function quoteIdentifier(name: string): string {
  return pg.escapeIdentifier(name)
}

/** A text as SQL literal. */
export function quoteLiteral(text: string): string {
  return pg.escapeLiteral(text)
}

/** `"schema"."name"`. */
export function quoteQualified(schema: string, name: string): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`
}
