import { expect, test } from 'vitest'
import { describeEachPostgres } from '../support/index.ts'
import { EventReplica, expectEqualToSelect, textOf, useTrunkline } from './cached.ts'

/** Literals by type: what a driver, JSON or a setting of the session could change. */
const literals: Readonly<Record<string, readonly string[]>> = {
  boolean: ['true', 'false'],
  bytea: ["'\\x00ff5c41'", "''", "'\\x5c78303030'", "'\\\\000a'"],
  '"char"': ["'a'", "''"],
  name: ["'name'", `'"N ü'`],
  bigint: ['9007199254740993', '-9223372036854775808', '0'],
  smallint: ['-32768', '32767'],
  integer: ['-2147483648', '2147483647', '0'],
  text: ["E'a\\b\\f\\n\\r\\t\"\\\\ ü 😀 \\x01'", "''", "'null'", "'@trunkline:u0000'", "'\\u0000'", "' x '"],
  oid: ['4294967295', '0'],
  'character varying': ["' x '", "'ü'"],
  bpchar: ["'ab  '", "E'a\\n '"],
  real: ["'-0'", "'NaN'", "'-Infinity'", '0.1', '16777217', '1e-45', '3.4028235e38'],
  'double precision': [
    "'-0'",
    "'NaN'",
    "'Infinity'",
    '0.1',
    '5e-324',
    '1.7976931348623157e308',
    '0.30000000000000004',
    '1e16',
  ],
  numeric: ["'12345678901234567890.1234500000'", "'NaN'", '0.00', '-0.000001', '1e30', '1.50'],
  money: ["'12.34'", "'-92233720368547758.08'"],
  date: ["'2024-02-29'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12024-01-02'"],
  'time without time zone': ["'24:00:00'", "'12:34:56.123456'"],
  'time with time zone': ["'12:34:56.123456+05:45'", "'00:00:00-15:59'"],
  'timestamp without time zone': [
    "'2024-01-02 03:04:05.678901'",
    "'infinity'",
    "'0044-03-15 12:00 BC'",
    "'10000-01-01 00:00:00'",
    "'2024-01-02 03:04:05.6'",
  ],
  'timestamp with time zone': [
    "'2024-01-02 03:04:05.678901+00'",
    "'-infinity'",
    "'1800-01-01 00:00:00+00'",
    "'0044-03-15 12:00+00 BC'",
    "'10000-01-01 00:00:00+00'",
    "'2024-01-02 03:04:05+00'",
  ],
  interval: [
    "'+1 year -2 mons +3 days -04:05:06.789012'",
    "'-1 day'",
    "'00:00'",
    "'178000000 years'",
    "'-1 year -2 mons -3 days -04:05:06.7'",
  ],
  uuid: ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
  inet: ["'10.0.0.1/8'", "'::1'", "'192.168.0.1'"],
  cidr: ["'10.0.0.0/8'", "'::/0'"],
  macaddr: ["'08:00:2b:01:02:03'"],
  macaddr8: ["'08:00:2b:01:02:03:04:05'"],
  bit: ["b'1'", "b'0'"],
  'bit varying': ["b'10101'", "b''"],
  json: [
    `'{"b": 1, "a": [1.50, -0, 12345678901234567890], "b": 2}'`,
    '\'""\'',
    `'  {"a": [1]}  '`,
    String.raw`'{"z": "\u0000 \ud83d\ude00"}'`,
  ],
  jsonb: [`'{"b": 1, "a": [1.50, 12345678901234567890.5], "c": null}'`, '\'"x"\'', "'17'"],
  jsonpath: [`'$."a"[*] ? (@ > 1.5)'`],
  xml: [`'<a b="c">d &amp; e</a>'`],
  tsvector: ["'fat:1A cat:2 ''q'':3'::tsvector", "''::tsvector"],
  tsquery: ["'fat & !cat'::tsquery"],
  point: ["'(0.1,-0)'", "'(NaN,Infinity)'"],
  line: ["'{1,0.30000000000000004,-2}'"],
  lseg: ["'[(0.1,0),(1,1)]'"],
  path: ["'[(0,0),(1,0.1)]'", "'((0,0),(1,1))'"],
  box: ["'((0.1,0.2),(0.3,0.30000000000000004))'"],
  polygon: ["'((0,0),(1,1),(2,0.1))'"],
  circle: ["'<(0.1,0.2),0.30000000000000004>'"],
  int4range: ["'[1,5)'", "'empty'", "'(,)'"],
  int8range: ["'[9007199254740993,)'"],
  numrange: ["'(1.50,2.0]'"],
  tsrange: ["'[2024-01-02 03:04:05.678901,infinity)'"],
  tstzrange: ["'[2024-01-02 03:04:05.678901+00,)'"],
  daterange: ["'[2024-02-29,2024-03-02)'"],
  int4multirange: ["'{[1,5),[7,8)}'", "'{}'"],
  int8multirange: ["'{[9007199254740993,)}'"],
  nummultirange: ["'{(1.50,2.0]}'"],
  tsmultirange: ["'{[2024-01-02 03:04:05,)}'"],
  tstzmultirange: ["'{[2024-01-02 03:04:05.678901+00,)}'"],
  datemultirange: ["'{[2024-02-29,2024-03-02)}'"],
  pg_lsn: ["'16/B374D848'"],
  txid_snapshot: ["'10:20:10,14,15'"],
  pg_snapshot: ["'10:20:10,14,15'"],
  tid: ["'(7,3)'"],
  xid: ["'4294967295'"],
  xid8: ["'18446744073709551615'"],
  cid: ["'7'"],
  int2vector: ["'1 2 3'"],
  oidvector: ["'1 4294967295'"],
  refcursor: ["'cursor'"],
  aclitem: ["'app_owner=r/app_owner'"],
  regproc: ["'pg_catalog.now'"],
  regprocedure: ["'pg_catalog.abs(integer)'"],
  regoper: ["'pg_catalog.||/'"],
  regoperator: ["'pg_catalog.+(integer,integer)'"],
  regclass: ["'public.referred'", "'pg_catalog.pg_class'"],
  regtype: ["'integer'", "'public.mood'"],
  regrole: ["'app_owner'"],
  regnamespace: ["'public'"],
  regconfig: ["'english'"],
  regdictionary: ["'simple'"],
  regcollation: [`'"C"'`],
  // Types of our own.
  mood: ["'so so'", '\'ü, "x"\''],
  positive: ["'1.50'"],
  moment: ["'2024-01-02 03:04:05.5+00'", "'2024-06-02 03:04:05+00'"],
  pair: [
    `row(0.1, 'a "q"', '2024-01-02 03:04:05+00', '+1 day -1 hour')`,
    'row(null, null, null, null)',
    `row('-0', '', null, null)`,
  ],
  floatrange: ["'[0.1,0.30000000000000004)'"],
}

/** Types whose input function takes nothing. */
const withoutInput = /^(pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_.*|gtsvector)$/

const hostileSettings: readonly string[] = [
  "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set extra_float_digits = -5",
  "set timezone = 'America/New_York'; set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard'; set bytea_output = 'escape'",
  "set datestyle = 'Postgres, MDY'; set intervalstyle = 'postgres_verbose'; set extra_float_digits = -15; set search_path = pg_catalog",
  "set intervalstyle = 'iso_8601'; set timezone = '-11:30'; set xmloption = document; set extra_float_digits = 3",
]

describeEachPostgres('every type', (server) => {
  const { cached, database, logger, run } = useTrunkline(server)

  interface TypeColumn {
    readonly type: string
    readonly values: readonly string[]
  }

  /** Scalar types of this server with their values; arrays come by themselves. */
  async function findTypes(): Promise<TypeColumn[]> {
    await run(
      'create table if not exists referred (id integer)',
      `do $$ begin
        if to_regtype('public.mood') is not null then return; end if;
        create type public.mood as enum ('so so', 'ü, "x"');
        create domain public.positive as numeric check (value > 0);
        create domain public.moment as timestamptz;
        create type public.pair as (f float8, t text, at timestamptz, i interval);
        create type public.floatrange as range (subtype = float8);
      end $$`,
    )
    const found = await database().query<{ type: string; name: string }>(
      `select format_type(oid, null) as type, typname as name from pg_type
        where (typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and (typcategory <> 'A' or typname in ('int2vector', 'oidvector')))
          or (typnamespace = 'public'::regnamespace and typname in ('mood', 'positive', 'moment', 'pair', 'floatrange'))
        order by oid`,
    )
    const [xml] = await database()
      .query("select '<a/>'::xml")
      .catch(() => [])
    const columns: TypeColumn[] = []
    const unknown: string[] = []
    for (const { type, name } of found) {
      if (withoutInput.test(name) || (name === 'xml' && xml === undefined)) continue
      const values = literals[type === 'character' ? 'bpchar' : type] ?? literals[name]
      if (values === undefined) unknown.push(name)
      else columns.push({ type: type === 'character' ? 'bpchar' : type, values })
    }
    // A version with a new type: give it values.
    expect(unknown).toEqual([])
    expect(columns.length).toBeGreaterThan(70)
    return columns
  }

  /** Each type and its array, in one table; as many rows as the type with the most values has. */
  function wideTable(
    types: readonly TypeColumn[],
    table: string,
    key: string,
  ): { create: string; row: (n: number) => string; names: string } {
    const hasArray = ({ type }: TypeColumn): boolean => !['int2vector', 'oidvector'].includes(type)
    const columns = types.flatMap((column, index) => [
      `c${index} ${column.type}`,
      ...(hasArray(column) ? [`a${index} ${column.type}[]`] : []),
    ])
    const row = (n: number): string =>
      types
        .flatMap((column) => {
          const { type, values } = column
          const value = (place: number): string => `cast(${values[place % values.length]} as ${type})`
          const array = n % 5 === 4 ? `'{}'::${type}[]` : `array[${value(n)}, null, ${value(n + 1)}]::${type}[]`
          return [value(n), ...(hasArray(column) ? [array] : [])]
        })
        .join(', ')
    const names = types.flatMap((column, index) => [`c${index}`, ...(hasArray(column) ? [`a${index}`] : [])]).join(', ')
    return { create: `create table ${table} (${key}${columns.join(', ')})`, row, names }
  }

  test.each([
    ['by key', 'by_key', 'id integer primary key, ', {}],
    ['by key, captured by key', 'by_key_only', 'id integer primary key, ', { rows: 'keys' }],
    ['without key', 'no_key', '', {}],
    ['without key, a column excluded', 'no_key_part', 'secret text, ', { exclude: ['secret'] }],
  ] as const)(
    '%s: as a SELECT through the driver gives it, whatever the writer had set',
    async (_, table, key, capture) => {
      const own = new Set(['mood', 'positive', 'moment', 'pair', 'floatrange'])
      const types = (await findTypes()).map(({ type, values }) => ({
        type: own.has(type) ? `public.${type}` : type,
        values,
      }))
      const { create, row, names } = wideTable(types, table, key)
      await run(create)
      const select = table === 'no_key_part' ? `select ${names} from ${table}` : `select * from ${table}`
      const hasId = key.startsWith('id')
      const insert = (id: number, n: number): string =>
        `insert into public.${table} (${hasId ? 'id, ' : ''}${names}) values (${hasId ? `${id}, ` : ''}${row(n)})`
      await run(insert(0, 0), insert(1, 3))
      const cache = await cached(table, {}, capture)
      const replica = new EventReplica(cache)
      await expectEqualToSelect(cache, database(), select)
      const writer = await database().connect()
      for (const [index, settings] of hostileSettings.entries()) {
        await writer.query(`reset all; ${settings}`)
        for (let n = 0; n < 8; n += 1) await writer.query(insert(10 + index * 10 + n, n))
        await cache.fresh()
        await expectEqualToSelect(cache, database(), select)
        await writer.query(
          `update public.${table} set (${names}) = row(${row(index + 2)}) ${hasId ? `where id % 3 = ${index % 3}` : `where ctid in (select ctid from public.${table} limit 5)`}`,
        )
        await cache.fresh()
        await expectEqualToSelect(cache, database(), select)
        await writer.query(`delete from public.${table} where ctid in (select ctid from public.${table} limit 3)`)
        await writer.query(
          `insert into public.${table} (${hasId ? 'id' : 'c0'}) values (${hasId ? 1000 + index : 'null'})`,
        )
        await cache.fresh()
        await expectEqualToSelect(cache, database(), select)
      }
      await writer.end()
      replica.expectEqualTo(cache)
      // Never by a fresh copy.
      expect(logger.lines.filter(({ message }) => message.startsWith(`${table}:`))).toEqual([])
    },
  )

  test('as a primary key, alone and with another: looked up by the value of a row', { timeout: 120_000 }, async () => {
    // Bounds of an array are no part of its JSON: keys that are vectors (their bounds begin with 0) are not found again.
    const types = (await findTypes()).filter(({ type }) => !/^(?:int2|oid)vector$/.test(type))
    const arrays = types.map(({ type, values }) => ({
      type: `${type}[]`,
      values: values.map((value) => `array[cast(${value} as ${type})]`),
    }))
    let tried = 0
    for (const [index, { type, values }] of [...types, ...arrays].entries()) {
      const table = `key_${index}`
      try {
        // An array's elements may lack what the array's operators ask for.
        await run(`select cast(${values[0]} as ${type}) < cast(${values[0]} as ${type})`)
        await run(`create table ${table} (k ${type}, n integer not null, primary key (k, n))`)
      } catch (error) {
        expect((error as { code?: string }).code, type).toMatch(/42704|42883/)
        continue
      }
      tried += 1
      for (const [n, value] of values.entries()) await run(`insert into ${table} values (${value}, ${n % 2})`)
      const cache = await cached(table, {}, index % 2 === 0 ? {} : { rows: 'keys' })
      const replica = new EventReplica(cache)
      const expectLookUps = async (): Promise<void> => {
        await cache.fresh()
        const rows = await database().query(`select * from ${table}`)
        await expectEqualToSelect(cache, database(), `select * from ${table}`)
        for (const row of rows) {
          const found = cache.get(row)
          if (textOf(found) !== textOf(row)) expect.fail(`${type}: looked up by ${textOf(row)}, found ${textOf(found)}`)
        }
        replica.expectEqualTo(cache)
      }
      await expectLookUps()
      const writer = await database().connect()
      await writer.query(`${hostileSettings[index % 3]}; set search_path = public`)
      await writer.query(`update ${table} set n = n + 10`)
      await expectLookUps()
      await writer.query(
        `begin; delete from ${table} where n = 10; insert into ${table} values (${values[0]}, 77); update ${table} set n = 5 where n = 77; commit`,
      )
      await expectLookUps()
      await writer.query(`begin; truncate ${table}; insert into ${table} values (${values.at(-1)}, 1); commit`)
      await expectLookUps()
      await writer.end()
      await cache.stop()
      await run(`drop table ${table}`)
    }
    expect(tried).toBeGreaterThan(60)
  })

  test('keys that are one Date in JavaScript: the text tells them apart', async () => {
    await run(
      'create table instants (at timestamptz primary key, n integer)',
      "insert into instants values ('2024-01-02 03:04:05.678901+00', 1), ('2024-01-02 03:04:05.678902+00', 2), ('2024-01-02 03:04:05.1+00', 3)",
    )
    const cache = await cached('instants')
    expect(() => cache.get(new Date('2024-01-02T03:04:05.678Z'))).toThrow(/Pass the texts/)
    expect(cache.get(new Date('2024-01-02T03:04:05.100Z'))).toMatchObject({ n: 3 })
    expect(cache.get(new Date('2024-01-02T03:04:05.200Z'))).toBeUndefined()
    expect(cache.get('2024-01-02 03:04:05.678902')).toMatchObject({ n: 2 })
    const replica = new EventReplica(cache)
    await run(
      'update instants set n = n + 1',
      'begin; truncate instants; insert into instants select $$2024-01-02 03:04:05.678901+00$$::timestamptz + n * $$1us$$::interval, n from generate_series(0, 5) as n; commit',
    )
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from instants')
    replica.expectEqualTo(cache)
  })
})
