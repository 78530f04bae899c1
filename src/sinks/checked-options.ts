import { validateHeaderName, validateHeaderValue } from 'node:http'
import { InvalidInputError, messageOf, shown } from '../core/index.ts'

/** What Node's timers can count to; beyond it they fire at once. */
const countMax = 2 ** 31 - 1

/** @throws InvalidInputError `invalid_option`: no whole number from 1 on. */
export function checkedCount<Missing>(name: string, value: number | undefined, missing: Missing): number | Missing {
  if (value === undefined) return missing
  if (Number.isInteger(value) && value > 0 && value <= countMax) return value
  throw new InvalidInputError(`Wrong sink: ${name} is ${shown(value)}.`, {
    code: 'invalid_option',
    hint: `Pass a whole number from 1 to ${countMax}.`,
  })
}

/** Found here, one that HTTP cannot send is a mistake of its writer; found later, it would fail each delivery. @throws InvalidInputError `invalid_option` */
export function checkedHeaders(headers: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  for (const [name, value] of Object.entries(headers)) {
    try {
      validateHeaderName(name)
      validateHeaderValue(name, value)
    } catch (error) {
      // The message tells the name, and never the value.
      throw new InvalidInputError(`Wrong sink: headers: ${messageOf(error)}.`, {
        code: 'invalid_option',
        hint: 'Names are letters, digits and hyphens; values are one line of printable ASCII.',
      })
    }
  }
  return headers
}
