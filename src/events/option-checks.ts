import { InvalidInputError, shown } from '../core/index.ts'

/** Each of these names what is being done and the option. @throws InvalidInputError `invalid_option`. */
export function wholeNumber(doing: string, option: string, value: unknown, min: number): number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min) return value
  throw invalid(`${doing}: ${option} is ${shown(value)}`, `a whole number from ${min} on`)
}

/** A time as text for the server. */
export function timeText(doing: string, option: string, value: unknown): string | null {
  if (value === undefined) return null
  if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString()
  if (typeof value === 'string' && value !== '' && isText(value)) return value
  throw invalid(
    `${doing}: ${option} is ${value instanceof Date ? 'an invalid Date' : shown(value)}`,
    'a Date, or a time as text',
  )
}

/** One of two directions; undefined is the first. */
export function isBackward(doing: string, value: unknown): boolean {
  if (value === undefined || value === 'forward') return false
  if (value === 'backward') return true
  throw invalid(`${doing}: direction is ${shown(value)}`, "'forward' or 'backward'")
}

export function text(doing: string, option: string, value: unknown): string | undefined {
  if (value === undefined || isText(value)) return value
  throw invalid(`${doing}: ${option} is ${shown(value)}`, 'a text that PostgreSQL can hold')
}

export function textList(doing: string, option: string, value: unknown): void {
  if (value === undefined || (Array.isArray(value) && value.every(isText))) return
  throw invalid(
    `${doing}: ${option} is no list of texts`,
    "a list of texts that PostgreSQL can hold, such as ['order']",
  )
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0') && value.isWellFormed()
}

export function invalid(found: string, expected: string): InvalidInputError {
  return new InvalidInputError(`${found}.`, { code: 'invalid_option', hint: `Expected ${expected}.` })
}
