import { InvalidInputError } from './errors.ts'

/** A payload that is JSON text already: it is sent as it is, so that numbers keep every digit. */
export class JsonText {
  readonly text: string

  /** @throws SyntaxError when it is no JSON; InvalidInputError when jsonb cannot hold it. */
  constructor(text: string) {
    jsonText('payload', JSON.parse(text))
    this.text = text
  }
}

/**
 * A value as the JSON text that jsonb takes. JSON.stringify alone would turn NaN into null and a Map into {}, and name no
 * place when it fails.
 *
 * @throws InvalidInputError `invalid_event` with the path of what is no JSON value.
 */
export function jsonText(name: string, value: unknown): string {
  if (value instanceof JsonText) return value.text
  if (!isSound(value, 0)) refuse(name, value, new Set())
  return JSON.stringify(value)
}

/** Deeper values are looked at by `refuse`, which knows a cycle. */
const soundDepthMax = 100

/** True when there is nothing to refuse: quick, since it need not tell where. */
function isSound(value: unknown, depth: number): boolean {
  if (typeof value === 'string') return problemOfText(value) === undefined
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object') return typeof value === 'boolean'
  if (value === null) return true
  if (depth > soundDepthMax) return false
  if (Array.isArray(value)) return isSoundList(value, depth) && !('toJSON' in value)
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false
  for (const key of Object.keys(value)) {
    const part = (value as Record<string, unknown>)[key]
    if (part === undefined) continue
    if (problemOfText(key) !== undefined || !isSound(part, depth + 1)) return false
  }
  return !('toJSON' in value)
}

/** A place that was never filled is undefined: `every` would pass over it. */
function isSoundList(list: readonly unknown[], depth: number): boolean {
  for (const part of list) if (!isSound(part, depth + 1)) return false
  return true
}

function refuse(path: string, value: unknown, above: Set<object>): void {
  const found = problemOf(value, above)
  if (found !== undefined) {
    throw new InvalidInputError(`Wrong event: ${path} is ${found}, which JSON has no word for.`, {
      code: 'invalid_event',
      hint: found === 'undefined' ? 'Pass null for none.' : 'Pass a string, or leave it out.',
      details: { path },
    })
  }
  if (typeof value !== 'object' || value === null) return
  if (hasToJson(value)) {
    const json = value.toJSON('')
    if (json !== value) refuse(path, json, above)
    return
  }
  above.add(value)
  for (const [key, part] of Array.isArray(value) ? value.entries() : Object.entries(value)) {
    // What JSON.stringify leaves out of an object is left out; in a list it would become null.
    if (part === undefined && !Array.isArray(value)) continue
    const partPath = Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`
    if (!Array.isArray(value)) refuse(`key of ${path}`, key, above)
    refuse(partPath, part, above)
  }
  above.delete(value)
}

function problemOf(value: unknown, above: Set<object>): string | undefined {
  switch (typeof value) {
    case 'undefined':
      return 'undefined'
    case 'bigint':
    case 'function':
    case 'symbol':
      return `a ${typeof value}`
    case 'number':
      return Number.isFinite(value) ? undefined : String(value)
    case 'string':
      return problemOfText(value)
    case 'object':
      return value === null ? undefined : problemOfObject(value, above)
    case 'boolean':
      return undefined
  }
}

function problemOfText(value: string): string | undefined {
  if (value.includes('\0')) return 'a text with a zero character'
  return value.isWellFormed() ? undefined : 'a text with half of a surrogate pair'
}

function problemOfObject(value: object, above: Set<object>): string | undefined {
  if (above.has(value)) return 'part of itself (a cycle)'
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'an invalid Date' : undefined
  return emptied.some((kind) => value instanceof kind) ? `a ${value.constructor.name}` : undefined
}

/** Of these JSON.stringify makes {}. */
const emptied = [Map, Set, RegExp, Promise]

function hasToJson(value: object): value is { toJSON(key: string): unknown } {
  return 'toJSON' in value && typeof value.toJSON === 'function'
}
