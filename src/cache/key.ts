import { InvalidInputError } from '../core/index.ts'
import type { KeyColumn } from '../log/index.ts'

/** What a key's column is in a map: numbers for types that are numbers in JavaScript, text for all else. */
export type KeyPart = string | number

const oids = {
  bool: 16,
  bytea: 17,
  char: 18,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  float4: 700,
  float8: 701,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  timestamp: 1114,
  timestamptz: 1184,
  numeric: 1700,
  uuid: 2950,
  jsonb: 3802,
} as const
const numberTypes: ReadonlySet<number> = new Set([oids.int2, oids.int4, oids.oid, oids.float4, oids.float8])
const dateTypes: ReadonlySet<number> = new Set([oids.date, oids.timestamp, oids.timestamptz])
/** Types of which no value is an object. */
const scalarTypes: ReadonlySet<number> = new Set([
  ...numberTypes,
  oids.bool,
  oids.char,
  oids.name,
  oids.int8,
  oids.text,
  oids.bpchar,
  oids.varchar,
  oids.numeric,
  oids.uuid,
])

/** Turns the server's text of a key column, and what a caller passes for it, into the same part of a key. */
export class KeyCodec {
  readonly name: string
  /** No value of the column is an object. */
  readonly isScalar: boolean
  readonly #typeOid: number
  readonly #isNumber: boolean

  constructor(column: KeyColumn) {
    this.name = column.name
    this.#typeOid = column.typeOid
    this.#isNumber = numberTypes.has(column.typeOid)
    this.isScalar = scalarTypes.has(column.typeOid)
  }

  /** From the text that the server printed. */
  fromText(text: string): KeyPart {
    if (this.#isNumber) return Number(text)
    return this.#typeOid === oids.numeric ? plainNumeric(text) : text
  }

  /**
   * From a value as a row holds it, or as a caller would write it. Undefined: the value of a type that the driver makes
   * an object of, which has no one text.
   */
  fromValue(value: unknown): KeyPart | undefined {
    // Its texts are JSON, and the driver's texts are not.
    if (this.#typeOid === oids.jsonb) return undefined
    if (typeof value === 'object' && value !== null) {
      const text = this.#textOfObject(value)
      if (text !== undefined || !this.isScalar) return text
    }
    if (typeof value === 'number') return this.#isNumber ? value : this.#textOfNumber(value)
    if (typeof value === 'string') return this.#partOfText(value)
    if (typeof value === 'bigint') return this.#isNumber ? Number(value) : String(value)
    if (typeof value === 'boolean' && !this.#isNumber) return String(value)
    throw new InvalidInputError(
      `The key's column "${this.name}" cannot be looked up by ${value === null ? 'null' : `a value of type ${typeof value}`}.`,
      {
        code: 'invalid_key',
        hint: 'Pass the value, or its text as SQL prints it.',
      },
    )
  }

  #textOfObject(value: object): string | undefined {
    if (value instanceof Date && dateTypes.has(this.#typeOid)) return this.#textOfDate(value)
    if (!(value instanceof Uint8Array) || this.#typeOid !== oids.bytea) return undefined
    return `\\x${Buffer.from(value).toString('hex')}`
  }

  #partOfText(text: string): KeyPart {
    if (this.#typeOid === oids.bpchar) return text.replace(/ +$/, '')
    if (this.#typeOid === oids.numeric) return plainNumeric(text)
    if (!this.#isNumber) return text
    const number = Number(text)
    // A text that is no number is no key either; as itself it is not found.
    return text.trim() === '' || (Number.isNaN(number) && text !== 'NaN') ? text : number
  }

  #textOfNumber(value: number): string {
    if (dateTypes.has(this.#typeOid)) return String(value).toLowerCase()
    if (this.#typeOid !== oids.numeric || !Number.isFinite(value)) return String(value)
    return plainNumeric(value.toLocaleString('en-US', { useGrouping: false, maximumSignificantDigits: 21 }))
  }

  /** As PostgreSQL prints it: microseconds without trailing zeros. The driver makes local times of types without zone. */
  #textOfDate(date: Date): string {
    const isUtc = this.#typeOid === oids.timestamptz
    const local = isUtc ? date : new Date(date.getTime() - date.getTimezoneOffset() * 60_000)
    const [day = '', time = ''] = local.toISOString().slice(0, -1).split('T')
    return this.#typeOid === oids.date ? day : `${day} ${time.replace(/\.?0+$/, '')}`
  }
}

/** 1.50 and 1.5 are one key. */
function plainNumeric(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text
}
