import { expect, test } from 'vitest'
import { captureTable } from '../../src/log/capture.ts'
import { describeEachPostgres } from '../support/index.ts'
import { logOf, queryableOf, useTrunklineDatabase } from './captured.ts'

/** Values whose text depends on a setting, or that JSON has no word for, by column type. */
const values: Readonly<Record<string, readonly string[]>> = {
  int8: ['9223372036854775807', '-9223372036854775808'],
  numeric: ["'12345678901234567890.1234500000'", "'NaN'", "'0.00'", "'-0.000001'"],
  float8: [
    "'-0'",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    '0.1',
    '1e-320',
    '1.7976931348623157e308',
    '0.30000000000000004',
  ],
  float4: ["'-0'", "'NaN'", "'-Infinity'", '0.1', '16777217'],
  bool: ['true', 'false'],
  text: ["E'a\\b\\f\\n\\r\\t\"\\\\ ü 😀 \\x01'", "''", "'null'", "'@trunkline:u0000'", "'\\u0000'", "'\\\\u0000'"],
  'char(5)': ["'ab'"],
  varchar: ["' x '"],
  '"char"': ["'a'", "''"],
  name: ["'name'"],
  bytea: ["'\\x00ff5c41'", "''", "'\\\\000a\\\\\\\\'"],
  date: ["'2024-02-29'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12024-01-02'"],
  time: ["'24:00:00'", "'12:34:56.123456'"],
  timetz: ["'12:34:56.123456+05:45'"],
  timestamp: ["'2024-01-02 03:04:05.678901'", "'infinity'", "'0044-03-15 12:00 BC'"],
  timestamptz: [
    "'2024-01-02 03:04:05.678901+00'",
    "'-infinity'",
    "'1800-01-01 00:00:00+00'",
    "'0044-03-15 12:00+00 BC'",
  ],
  interval: ["'1 year -2 mons +3 days -04:05:06.789012'", "'-1 day'", "'00:00'", "'178000000 years'"],
  uuid: ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
  inet: ["'10.0.0.1/8'", "'::1'"],
  cidr: ["'10.0.0.0/8'"],
  macaddr: ["'08:00:2b:01:02:03'"],
  bit: ["b'1'"],
  'bit varying': ["b'10101'", "b''"],
  json: [`'{"b": 1, "a": [1.50, -0, 1e400], "b": 2}'`, '\'""\''],
  jsonb: [`'{"b": 1, "a": [1.50, 12345678901234567890.5], "c": null}'`],
  xml: ['\'<a b="c">d</a>\''],
  tsvector: ["'fat:1A cat:2 ''q'':3'::tsvector"],
  tsquery: ["'fat & !cat'::tsquery"],
  point: ["'(0.1,-0)'", "'(NaN,Infinity)'"],
  box: ["'((0.1,0.2),(0.3,0.30000000000000004))'"],
  polygon: ["'((0,0),(1,1),(2,0.1))'"],
  circle: ["'<(0.1,0.2),0.30000000000000004>'"],
  'int4[]': ["'{1,null,3}'", "'{}'", "'{{1,2},{3,4}}'"],
  'text[]': [`'{"a,b","\\"q\\"",null,"null",""}'`],
  'float8[]': ["'{0.1,NaN,-0,Infinity}'"],
  'timestamptz[]': ["'{2024-01-02 03:04:05.678901+00,infinity}'"],
  'interval[]': ["'{1 year -2 days}'"],
  'bytea[]': ['\'{"\\\\\\\\x00ff"}\''],
  int4range: ["'[1,5)'", "'empty'", "'(,)'"],
  numrange: ["'(1.50,2.0]'"],
  tstzrange: ["'[2024-01-02 03:04:05.678901+00,)'"],
  daterange: ["'[2024-02-29,2024-03-01)'"],
  money: ["'12.34'"],
  pg_lsn: ["'16/B374D848'"],
  txid_snapshot: ["'10:20:10,14,15'"],
  regtype: ["'integer'"],
  regclass: ["'public.referred'"],
  mood: ["'so so'", '\'ü, "x"\''],
  positive: ["'1.50'"],
  pair: [`row(0.1, 'a "q"', '2024-01-02 03:04:05+00', '1 day -1 hour')`, 'row(null, null, null, null)'],
  'pair[]': [`array[row(0.1, 'a', '2024-01-02 03:04:05+00', '1 day'), null]::pair[]`],
}

const settings: readonly string[] = [
  '',
  "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'",
  "set timezone = 'America/New_York'; set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard'",
  "set datestyle = 'Postgres, MDY'; set intervalstyle = 'postgres_verbose'; set extra_float_digits = -5",
  "set datestyle = 'ISO, DMY'; set intervalstyle = 'iso_8601'; set bytea_output = 'escape'; set extra_float_digits = -15",
  "set bytea_output = 'escape'; set extra_float_digits = 3; set timezone = '-11:30'; set xmloption = document",
]

describeEachPostgres('captured values', (server) => {
  const database = useTrunklineDatabase(server)

  async function install(
    table: string,
    statements: (write: (text: string) => Promise<void>) => Promise<void>,
    rows: 'full' | 'custom',
  ): Promise<void> {
    await database().query(`drop table if exists ${table}`)
    await database().query(`create table ${table} (id serial primary key, secret text default 's',
      ${Object.keys(values)
        .map((type, index) => `c${index} ${type}`)
        .join(', ')})`)
    await captureTable(queryableOf(database()), 'trunkline', table, rows === 'full' ? {} : { exclude: ['secret'] })
    const writer = await database().connect()
    await statements(async (text) => {
      await writer.query(text)
    })
    await writer.end()
  }

  async function prepare(): Promise<void> {
    const [row] = await database().query<{ there: boolean }>("select to_regtype('mood') is not null as there")
    if (row?.there === true) return
    await database()
      .query(`create type mood as enum ('so so', 'ü, "x"'); create domain positive as numeric check (value > 0);
      create type pair as (f float8, t text, at timestamptz, i interval); create table referred (id integer)`)
  }

  /** Values, decoded in another session with the default settings, that differ from what the table has. */
  async function differences(table: string): Promise<string[]> {
    const types = Object.keys(values)
    const rows = await database().query<{ id: number; place: number; expected: string | null; found: string | null }>(
      `with decoded as (
        select (json_populate_record(null::${table}, trunkline.decodable(l.new))).*
        from trunkline.log as l join trunkline.topic as t on t.id = l.topic
        where t.relation = '${table}'::regclass and l.operation = 'i'
      )
      select id, v.place::integer, v.expected, v.found
      from ${table} as t full join decoded as d using (id)
      cross join lateral (values ${types.map((_, index) => `(${index}, t.c${index}::text, d.c${index}::text)`).join(', ')}) as v (place, expected, found)
      where v.expected is distinct from v.found order by id`,
    )
    return rows.map(({ id, place, expected, found }) => `row ${id}, ${types[place]}: ${expected} became ${found}`)
  }

  test.each(['full', 'custom'] as const)('P7: every type, whatever the writer has set (%s)', async (rows) => {
    await prepare()
    const table = `exact_${rows}`
    await install(
      table,
      async (write) => {
        for (const setting of settings) {
          await write(`reset all; ${setting}`)
          for (const [index, [type, list]] of Object.entries(values).entries()) {
            // Composites hold texts that a session's DateStyle must not misread: written as timestamptz.
            for (const value of list) {
              if (type.startsWith('pair') && setting !== '') {
                await write(
                  `insert into ${table} (c${index}) select c${index} from ${table} where c${index} is not null limit 1`,
                )
              } else await write(`insert into ${table} (c${index}) values (${value})`)
            }
          }
        }
        await write(`insert into ${table} default values`)
      },
      rows,
    )
    expect(await differences(table)).toEqual([])
    const [sizes] = await database().query<{ same: boolean }>(
      `select count(*) = (select count(*) from ${table}) as same from trunkline.log as l join trunkline.topic as t on t.id = l.topic where t.relation = '${table}'::regclass`,
    )
    expect(sizes).toEqual({ same: true })
    if (rows === 'custom')
      expect((await logOf(database(), table)).some((row) => row.new?.includes('secret'))).toBe(false)
  })

  test('the two limits: null as a json value, and the bounds of an array, as a driver shows them', async () => {
    await database().query('create table limited (id integer, j jsonb, a integer[])')
    await captureTable(queryableOf(database()), 'trunkline', 'limited')
    await database().query("insert into limited values (1, 'null', '[0:1]={7,8}')")
    const decoded = await database().query(
      `select r.* from trunkline.log as l join trunkline.topic as t on t.id = l.topic
        cross join lateral json_populate_record(null::limited, trunkline.decodable(l.new)) as r where t.relation = 'limited'::regclass`,
    )
    expect(decoded).toEqual(await database().query('select * from limited'))
  })

  test('the writer keeps its own settings', async () => {
    await database().query('create table kept (id integer)')
    await captureTable(queryableOf(database()), 'trunkline', 'kept')
    await database().query('create table kept_too (id integer, secret text)')
    await captureTable(queryableOf(database()), 'trunkline', 'kept_too', { exclude: ['secret'] })
    const writer = await database().connect()
    const read = async (): Promise<unknown> =>
      (
        await writer.query(
          "select current_setting('datestyle') as d, current_setting('intervalstyle') as i, current_setting('extra_float_digits') as e, current_setting('search_path') as s",
        )
      ).rows[0]
    await writer.query(
      "set datestyle = 'German'; set intervalstyle = 'sql_standard'; set extra_float_digits = -3; set search_path = public, pg_temp",
    )
    const before = await read()
    await writer.query('insert into kept values (1); insert into kept_too values (1)')
    expect(await read()).toEqual(before)
    await writer.query(
      "begin; set local datestyle = 'SQL, DMY'; insert into kept values (2); insert into kept_too values (2)",
    )
    expect(await read()).toMatchObject({ d: 'SQL, DMY' })
    await writer.query('commit')
    expect(await read()).toEqual(before)
    await expect(writer.query('begin; insert into kept select 1 / 0')).rejects.toThrow(/division/)
    await writer.query('rollback')
    expect(await read()).toEqual(before)
  })

  test('a json value with a zero character: written as it is, read back through decodable()', async () => {
    await database().query('create table zero (id integer primary key, j json, t text)')
    await captureTable(queryableOf(database()), 'trunkline', 'zero')
    const texts = [String.raw`{"a": "\u0000"}`, String.raw`"\\u0000 \ud83d\ude00 \\\u0000"`, String.raw`"\ud800"`]
    for (const [index, text] of texts.entries()) {
      await database().query('insert into zero values ($1, $2, $3)', [index, text, String.raw`\u0000`])
    }
    const rows = await logOf(database(), 'zero')
    expect(rows.map((row) => row.new)).toEqual(
      texts.map((text, index) => `{"id":${index},"j":${text},"t":"\\\\u0000"}`),
    )
    const decoded = await database().query<{ j: string; t: string }>(
      `select r.j::text as j, r.t from trunkline.log as l join trunkline.topic as t on t.id = l.topic
        cross join lateral json_populate_record(null::zero, trunkline.decodable(l.new)) as r
      where t.relation = 'zero'::regclass order by l.id`,
    )
    expect(decoded.map(({ j }) => j.replaceAll('@trunkline:', '\\'))).toEqual(texts)
    expect(decoded.map(({ t }) => t)).toEqual(texts.map(() => String.raw`\u0000`))
  })

  test('a hostile search_path: shadowed functions, operators, types and tables are not used', async () => {
    await database().query('create table honest (id integer primary key, name text, secret text)')
    await database().query('create table honest_too (id integer primary key, name text, secret text)')
    await captureTable(queryableOf(database()), 'trunkline', 'honest')
    await captureTable(queryableOf(database()), 'trunkline', 'honest_too', { exclude: ['secret'], where: 'id > 0' })
    await database().query(`
      create schema hostile;
      create function hostile.row_to_json(anyelement) returns json language sql as $$select '{"id": 666}'::json$$;
      create function hostile.current_setting(text) returns text language sql as $$select 'evil'$$;
      create function hostile.pg_notify(text, text) returns void language plpgsql as $$begin raise 'evil'; end$$;
      create function hostile.log_slot() returns integer language sql as 'select 1 / 0';
      create function hostile.evil(integer, integer) returns boolean language sql as 'select true';
      create operator hostile.= (leftarg = integer, rightarg = integer, function = hostile.evil);
      create operator hostile.> (leftarg = integer, rightarg = integer, function = hostile.evil);
      create table hostile.log_0 (id integer); create table hostile.topic (id integer); create table hostile.trunkline_new (id integer)`)
    const writer = await database().connect()
    await writer.query(
      'create temporary table log_0 (id integer); create temporary table topic (id bigint); create temporary table trunkline_new (id integer)',
    )
    await writer.query(
      'create function pg_temp.row_to_json(anyelement) returns json language sql as $$select null::json$$',
    )
    await writer.query('set search_path = pg_temp, hostile, pg_catalog, public')
    await writer.query(
      "insert into public.honest values (1, 'a', 's'); insert into public.honest_too values (1, 'a', 's'), (-1, 'b', 's')",
    )
    await writer.query("update public.honest set name = 'b' where id operator(pg_catalog.=) 1")
    expect((await logOf(database(), 'honest')).map((row) => row.new)).toEqual([
      '{"id":1,"name":"a","secret":"s"}',
      '{"id":1,"name":"b","secret":"s"}',
    ])
    expect((await logOf(database(), 'honest_too')).map((row) => row.new)).toEqual(['{"id":1,"name":"a"}'])
  })

  test.skipIf(Number(server.version) < 18)('virtual columns hold what a SELECT gives', async () => {
    await database().query(`create table virtual_leaf (id integer primary key, n integer,
      double integer generated always as (n * 2) virtual, text text generated always as (id || ': ' || n) virtual)`)
    await database().query(`create table virtual_root (like virtual_leaf including all) partition by range (id)`)
    await database().query('create table virtual_part partition of virtual_root for values from (0) to (10)')
    for (const table of ['virtual_leaf', 'virtual_root']) {
      await captureTable(queryableOf(database()), 'trunkline', table)
      await database().query(`insert into ${table} values (1, 2); update ${table} set n = 3`)
      const images = (await logOf(database(), table)).map((row) => [row.old, row.new])
      expect(images).toEqual([
        [null, '{"id":1,"n":2,"double":4,"text":"1: 2"}'],
        ['{"id":1,"n":2,"double":4,"text":"1: 2"}', '{"id":1,"n":3,"double":6,"text":"1: 3"}'],
      ])
    }
  })
})
