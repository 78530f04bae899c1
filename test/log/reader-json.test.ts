import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { messageIdOf } from '../../src/log/change.ts'
import { decodeImage, keyOf, parseExact } from '../../src/log/decode-json.ts'
import type { TopicTable, ValueShape } from '../../src/log/reader-topics.ts'

const exact: ValueShape = { kind: 'exact' }
const plain: ValueShape = { kind: 'plain' }

function tableOf(shapes: Record<string, ValueShape>): TopicTable {
  const columns = Object.entries(shapes).map(([name, shape]) => ({ name, typeOid: '0', shape }))
  return { schemaName: 'public', tableName: 't', columns, keyColumns: ['id'] }
}

describe('JSON of the log', () => {
  test('keeps every digit of every number', () => {
    // As PostgreSQL and people write numbers, but not as JavaScript would.
    const integer = fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }).map(String)
    const decimal = fc
      .tuple(fc.bigInt({ min: 0n, max: 10n ** 18n }), fc.stringMatching(/^[0-9]{1,20}$/), fc.boolean())
      .map(([whole, digits, isNegative]) => `${isNegative ? '-' : ''}${whole}.${digits}`)
    const exponent = fc
      .tuple(fc.stringMatching(/^-?[1-9]\.[0-9]{1,8}$/), fc.constantFrom('e', 'E', 'e+', 'e-'), fc.nat(300))
      .map(([mantissa, e, power]) => `${mantissa}${e}${power}`)
    const number = fc.oneof(
      integer,
      decimal,
      exponent,
      fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
      fc.constant('-0'),
    )
    fc.assert(
      fc.property(fc.array(number, { maxLength: 5 }), fc.string(), (numbers, text) => {
        const json = `{"text":${JSON.stringify(text)},"numbers":[${numbers.join(',')}],"inner":{"n":${numbers[0] ?? 'null'}}}`
        expect(JSON.stringify(parseExact(json))).toBe(json)
      }),
      { numRuns: 2_000 },
    )
  })

  test('int8 and numeric are strings, wherever they are', () => {
    const table = tableOf({
      id: exact,
      amounts: { kind: 'array', of: exact },
      money: {
        kind: 'composite',
        fields: new Map<string, ValueShape>([
          ['amount', exact],
          ['currency', plain],
        ]),
      },
      document: { kind: 'json', isBinary: false },
      small: plain,
      none: exact,
    })
    const image =
      '{"id":9007199254740993,"amounts":[[1.10,"NaN"],[null,3]],"money":{"amount":1.50,"currency":"EUR"},"document":{"a":[1.0,"1"]},"small":7,"none":null}'
    expect(JSON.stringify(decodeImage(image, table))).toBe(
      '{"id":"9007199254740993","amounts":[["1.10","NaN"],[null,"3"]],"money":{"amount":"1.50","currency":"EUR"},"document":{"a":[1.0,"1"]},"small":7,"none":null}',
    )
  })

  test('what has no type any more loses no digit', () => {
    expect(JSON.stringify(decodeImage('{"a":1,"b":9007199254740993,"c":[1.10,{"d":0.5}],"e":"1"}', undefined))).toBe(
      '{"a":1,"b":"9007199254740993","c":["1.10",{"d":0.5}],"e":"1"}',
    )
  })

  test('bytea looks the same whatever the writer had set', () => {
    const table = tableOf({ id: plain, data: { kind: 'bytea' } })
    const decoded = (data: string): unknown => decodeImage(JSON.stringify({ id: 1, data }), table)['data']
    expect(decoded(String.raw`\xdeadbeef`)).toBe(String.raw`\xdeadbeef`)
    expect(decoded(String.raw`a\\\336\001z`)).toBe(String.raw`\x615cde017a`)
    expect(decoded('')).toBe(String.raw`\x`)
  })

  test('a column may have any name', () => {
    const table = tableOf({ __proto__x: exact, constructor: exact })
    const image = decodeImage('{"__proto__":12345678901234567890,"constructor":1}', table)
    expect(Object.keys(image)).toEqual(['__proto__', 'constructor'])
    expect(JSON.stringify(image)).toBe('{"__proto__":"12345678901234567890","constructor":"1"}')
  })

  test('a key is the bare value of one column, an object of more, or the row', () => {
    const image = decodeImage(
      '{"id":7,"code":"01","big":12345678901234567890}',
      tableOf({ id: plain, code: plain, big: exact }),
    )
    expect(keyOf(image, 'text', ['id'])).toBe('7')
    expect(keyOf(image, 'text', ['code'])).toBe('01')
    expect(keyOf(image, 'text', ['code', 'big'])).toBe('{"code":"01","big":"12345678901234567890"}')
    expect(keyOf(image, 'text', [])).toBe('text')
    expect(keyOf(image, 'text', ['gone'])).toBe('text')
  })

  test('a message id is a uuid of what tells the row apart', () => {
    const id = messageIdOf('1', '2', '2024-01-01T00:00:00.000001Z')
    expect(id).toMatch(/^[\da-f]{8}-[\da-f]{4}-8[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/)
    expect(messageIdOf('1', '2', '2024-01-01T00:00:00.000001Z')).toBe(id)
    const others = [
      messageIdOf('2', '2', '2024-01-01T00:00:00.000001Z'),
      messageIdOf('1', '3', '2024-01-01T00:00:00.000001Z'),
      messageIdOf('1', '2', '2024-01-01T00:00:00.000002Z'),
    ]
    expect(new Set([id, ...others]).size).toBe(4)
  })
})
