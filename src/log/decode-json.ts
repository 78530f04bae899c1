import type { TopicTable, ValueShape } from './reader-topics.ts'

/** Node 24 has it, the compiler's library does not. */
interface SourceJson {
  parse(
    text: string,
    reviver: (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown
  rawJSON(text: string): RawNumber
  isRawJSON(value: unknown): value is RawNumber
}

/** A number as it was written; `JSON.stringify` prints it so. */
interface RawNumber {
  readonly rawJSON: string
}

const sourceJson = JSON as unknown as SourceJson

/**
 * Where a number may stand that JavaScript would print otherwise: 16 digits and more, a last decimal 0, an exponent, -0,
 * or many zeros behind the point. Finds it in texts too; that only costs the slower way.
 */
const unusual = /[\d.]{16}|\.\d*0(?!\d)|\d[eE]|-0|0\.00000/

/**
 * Parses JSON so that no digit is lost: a number that JavaScript would print otherwise than it was written becomes an object
 * that `JSON.stringify` prints as it was (`JSON.rawJSON`).
 */
export function parseExact(text: string): unknown {
  if (!unusual.test(text)) return JSON.parse(text) as unknown
  return sourceJson.parse(text, (_key, value, { source }) =>
    typeof value === 'number' && source !== undefined && String(value) !== source ? sourceJson.rawJSON(source) : value,
  )
}

/**
 * The image of a row as JSON: int8 and numeric are strings, also inside of arrays and composites; the rest is as it is
 * stored. Columns that the table has no more (all, when it was dropped) have no type: their numbers are strings where
 * JavaScript would lose digits.
 */
export function decodeImage(text: string, table: TopicTable | undefined): Record<string, unknown> {
  const image = parseExact(text) as Record<string, unknown>
  const shapes = shapesOf(table)
  for (const [name, value] of Object.entries(image)) {
    if (value === null) continue
    const decoded = decodeValue(value, shapes?.get(name))
    if (decoded !== value) define(image, name, decoded)
  }
  return image
}

/** The key of a row, from an image that `decodeImage` gave; `text` is the image itself. */
export function keyOf(image: Readonly<Record<string, unknown>>, text: string, keyColumns: readonly string[]): string {
  const [first] = keyColumns
  if (first === undefined || keyColumns.some((name) => !Object.hasOwn(image, name))) return text
  if (keyColumns.length === 1) return bareText(image[first])
  return JSON.stringify(Object.fromEntries(keyColumns.map((name) => [name, image[name]])))
}

const shapeCache = new WeakMap<TopicTable, ReadonlyMap<string, ValueShape>>()

function shapesOf(table: TopicTable | undefined): ReadonlyMap<string, ValueShape> | undefined {
  if (table === undefined) return undefined
  const known = shapeCache.get(table)
  if (known !== undefined) return known
  const shapes = new Map(table.columns.map((column) => [column.name, column.shape]))
  shapeCache.set(table, shapes)
  return shapes
}

function decodeValue(value: unknown, shape: ValueShape | undefined): unknown {
  if (value === null) return null
  switch (shape?.kind) {
    case undefined:
      return untyped(value)
    case 'exact':
      return typeof value === 'object' || typeof value === 'number' ? bareText(value) : value
    case 'bytea':
      return typeof value === 'string' ? hexBytes(value) : value
    case 'array':
      return Array.isArray(value) ? value.map((element) => decodeElement(element, shape.of)) : value
    case 'composite':
      return decodeComposite(value, shape.fields)
    case 'json':
    case 'plain':
      return value
  }
}

/** An element may be an array itself: PostgreSQL's arrays have one type for all dimensions. */
function decodeElement(value: unknown, shape: ValueShape): unknown {
  // The elements of json[] may be arrays of their own; nothing is to be done to them either way.
  return Array.isArray(value) ? value.map((element) => decodeElement(element, shape)) : decodeValue(value, shape)
}

function decodeComposite(value: unknown, fields: ReadonlyMap<string, ValueShape>): unknown {
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, decodeValue(field, fields.get(name))]))
}

/** Of a type nobody knows any more. */
function untyped(value: unknown): unknown {
  if (sourceJson.isRawJSON(value)) return value.rawJSON
  if (Array.isArray(value)) return value.map(untyped)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, untyped(field)]))
}

/** A value as text: a string as it is, a number with its digits, anything else as JSON. */
function bareText(value: unknown): string {
  if (typeof value === 'string') return value
  return sourceJson.isRawJSON(value) ? value.rawJSON : JSON.stringify(value)
}

/** bytea as `\x…`, whatever `bytea_output` the writer had: its other form doubles backslashes, so it never begins so. */
function hexBytes(text: string): string {
  if (text.startsWith('\\x')) return text
  const bytes = text.replaceAll(/\\(\\|[0-7]{3})|[^]/g, (all, escaped: string | undefined) => {
    const code = escaped === undefined ? all.charCodeAt(0) : escaped === '\\' ? 92 : Number.parseInt(escaped, 8)
    return code.toString(16).padStart(2, '0')
  })
  return `\\x${bytes}`
}

/** A column may be called `__proto__`. */
function define(image: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(image, name, { value, enumerable: true, configurable: true, writable: true })
}
