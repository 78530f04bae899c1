import type { ChangedColumn, ChangedTable } from '../../log/index.ts'

type Row = Readonly<Record<string, unknown>>

/** Node 24 has it, the compiler's library does not: a number with all of its digits. */
const sourceJson = JSON as unknown as { rawJSON(text: string): unknown }

const microsPerDay = 86_400_000_000n

/**
 * How Debezium writes values of PostgreSQL's types, with its defaults but for `decimal.handling.mode=string`; by oid. Values of
 * other types are as JSON has them, and so is what has no such form (infinity, years before Christ).
 */
const writers: Readonly<Record<string, (text: string, modifier: number) => unknown>> = {
  // int8: a number
  20: (text) => sourceJson.rawJSON(text),
  // bytea: base64
  17: (text) => (text.startsWith('\\x') ? Buffer.from(text.slice(2), 'hex').toString('base64') : text),
  // date: days
  1082: (text) => ifSome(microsOf(`${text}T00:00:00`), (micros) => Number(micros / microsPerDay)) ?? text,
  // time: microseconds of the day, or milliseconds
  1083: (text, modifier) => ifSome(microsOf(`1970-01-01T${text}`), (micros) => inUnit(micros, modifier)) ?? text,
  // timestamp: microseconds, or milliseconds
  1114: (text, modifier) => ifSome(microsOf(text), (micros) => inUnit(micros, modifier)) ?? text,
  // timestamptz: a text in UTC with microseconds
  1184: (text) => inUtc(text) ?? text,
}
/** json and jsonb: the text of it. */
const jsonTypes = new Set(['114', '3802'])

/** A row as Debezium writes it. */
export function debeziumRow(row: Row | null, table: ChangedTable | undefined): Row | null {
  if (row === null || table === undefined) return row
  const columns = new Map(table.columns.map((column) => [column.name, column]))
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, debeziumValue(value, columns.get(name))]))
}

function debeziumValue(value: unknown, column: ChangedColumn | undefined): unknown {
  if (value === null || column === undefined) return value
  const { typeOid, typeModifier = -1 } = column
  if (jsonTypes.has(typeOid)) return JSON.stringify(value)
  const write = writers[typeOid]
  return write === undefined || typeof value !== 'string' ? value : write(value, typeModifier)
}

/** Of a type with 0 to 3 digits behind the second Debezium has milliseconds (`time.precision.mode=adaptive`). */
function inUnit(micros: bigint, modifier: number): unknown {
  const hasMillis = modifier >= 0 && modifier <= 3
  return sourceJson.rawJSON(String(hasMillis ? micros / 1_000n : micros))
}

const instant = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?$/

/** Microseconds since 1970 of a time without zone; undefined: it is not in that form. */
function microsOf(text: string): bigint | undefined {
  const [, seconds, fraction = ''] = instant.exec(text) ?? []
  const ms = seconds === undefined ? Number.NaN : Date.parse(`${seconds}Z`)
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000n + BigInt(fraction.padEnd(6, '0'))
}

function inUtc(text: string): string | undefined {
  const [, seconds = '', fraction = '', zone = ''] = /^([^.+]{19})(?:\.(\d{1,6}))?([+-][\d:]+)$/.exec(text) ?? []
  // A zone has minutes for JavaScript; PostgreSQL leaves them out where there are none.
  const ms = Date.parse(`${seconds}${/^.\d\d$/.test(zone) ? `${zone}:00` : zone}`)
  return Number.isNaN(ms) ? undefined : `${new Date(ms).toISOString().slice(0, 19)}.${fraction.padEnd(6, '0')}Z`
}

function ifSome<Value, Result>(value: Value | undefined, use: (value: Value) => Result): Result | undefined {
  return value === undefined ? undefined : use(value)
}
