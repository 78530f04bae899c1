import { InvalidInputError } from '../core/index.ts'
import { quoteIdentifier, quoteQualified } from '../postgres/index.ts'

/** Longest name that PostgreSQL keeps, in bytes. */
const nameBytesMax = 63

/** A table of a read model, by the name that it has when it is live. */
export interface TableName {
  /** As it was declared. */
  readonly given: string
  readonly schema: string
  readonly name: string
  /** As SQL writes it. */
  readonly sql: string
}

const part = String.raw`(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\d_$]*))`
const pattern = new RegExp(String.raw`^\s*(?:${part}\s*\.\s*)?${part}\s*$`, 'u')

/** Reads a name as SQL does; without a schema it is `public`. @throws InvalidInputError `invalid_option`. */
export function tableName(given: string): TableName {
  const match = pattern.exec(given)
  if (match === null) {
    throw new InvalidInputError(`${JSON.stringify(given)} is no name of a table.`, {
      code: 'invalid_option',
      hint: 'Write it as in SQL: order_list, app.order_list or "Odd Schema"."Odd Table".',
    })
  }
  const [, quotedSchema, plainSchema, quotedName, plainName] = match
  const schema = plain(quotedSchema, plainSchema) ?? 'public'
  const name = plain(quotedName, plainName) ?? ''
  return { given, schema, name, sql: quoteQualified(schema, name) }
}

/** The name that it has while a build makes it, unquoted. */
export function builtName({ name }: TableName, build: string): string {
  const suffix = `__${build}`
  let kept = name
  while (Buffer.byteLength(kept) + suffix.length > nameBytesMax) kept = Array.from(kept).slice(0, -1).join('')
  return kept + suffix
}

/** The same as SQL writes it, with its schema. */
export function builtAs(table: TableName, build: string): string {
  return `${quoteIdentifier(table.schema)}.${quoteIdentifier(builtName(table, build))}`
}

function plain(quoted: string | undefined, unquoted: string | undefined): string | undefined {
  return quoted === undefined ? unquoted?.toLowerCase() : quoted.replaceAll('""', '"')
}
