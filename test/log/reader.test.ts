import pg from 'pg'
import { describe, expect, test } from 'vitest'
import {
  type Batch,
  type Change,
  loadCheckpoint,
  LogReader,
  type LogReaderOptions,
  parsePosition,
  positionAt,
  removeCheckpoint,
  saveCheckpoint,
} from '../../src/log/index.ts'
import type { EmbeddedPostgresVersion } from '../../src/testing/index.ts'
import {
  createStandby,
  describeEachPostgres,
  describeEachVersion,
  lacksPgBouncer,
  ownCluster,
  startPgBouncer,
  createDatabase,
  type TestDatabase,
} from '../support/index.ts'
import { install, queryableOf, useTrunklineDatabase } from './captured.ts'

async function batchesOf(reader: LogReader): Promise<Batch[]> {
  const batches: Batch[] = []
  for (;;) {
    const batch = await reader.next()
    batches.push(batch)
    if (batch.level) return batches
  }
}

/** Everything there is to read at present. */
async function readAll(reader: LogReader): Promise<Change[]> {
  return (await batchesOf(reader)).flatMap((batch) => batch.changes)
}

async function open(database: TestDatabase, options: Partial<LogReaderOptions> = {}): Promise<LogReader> {
  return LogReader.open(queryableOf(database), { from: 'beginning', ...options })
}

async function read(database: TestDatabase, options: Partial<LogReaderOptions> = {}): Promise<Change[]> {
  return readAll(await open(database, options))
}

async function createTable(database: TestDatabase, name: string, columns: string): Promise<void> {
  await database.query(`create table ${name} (${columns})`)
  await database.query('select trunkline.capture($1)', [name])
}

describeEachPostgres('changes', (server) => {
  const database = useTrunklineDatabase(server)

  test.each(['typed', 'json'] as const)('of tables by name, whatever tables have it: %s', async (decoding) => {
    const db = database()
    const [name, other] = [`anew_${decoding}`, `moved_${decoding}`]
    const make = async (columns: string, value: string): Promise<void> => {
      await createTable(db, name, columns)
      await db.query(`insert into ${name} values (${value})`)
    }
    await make('id integer primary key, v text', "1, 'a'")
    const reader = await open(db, { tables: [name], decoding })
    const byTopic = await open(db, { topics: [`public.${name}`], decoding })
    const first = await readAll(reader)
    await db.query(`alter table ${name} rename to ${other}`)
    // The name goes to another table, which is gone again before anybody looks, and then to one with other columns.
    await make('id integer primary key, v text', "2, 'b'")
    await db.query(`drop table ${name}`)
    await make('id integer primary key, w integer', '3, 33')
    // The reader keeps what it has begun with; for a new one this is a table of another name.
    await db.query(`insert into ${other} values (4, 'd')`)
    const values = (changes: readonly Change[]): unknown[] =>
      changes.filter(({ operation }) => operation === 'insert').map((change) => change.new?.['id'])
    expect([...values(first), ...values(await readAll(reader))]).toEqual([1, 2, 3, 4])
    expect(values(await readAll(byTopic))).toEqual([1, 2, 3, 4])
    expect(values(await read(db, { tables: [name], decoding }))).toEqual([2, 3])
    expect(values(await read(db, { tables: [other], decoding }))).toEqual([1, 4])
  })

  test('of a table tell what happened', async () => {
    const db = database()
    await createTable(db, 'thing', 'id bigint primary key, name text')
    const reader = await open(db, { from: 'now', tables: ['thing'] })
    const other = await open(db, { from: 'now', tables: ['thing'], decoding: 'json' })
    expect(await reader.next()).toMatchObject({ changes: [], complete: true, level: true })
    await db.query("insert into thing values (1, 'a')")
    await db.query('update thing set id = 2')
    await db.query('delete from thing')
    await db.query('truncate thing')
    const common = { topic: 'public.thing', table: 'public.thing', type: null, payload: null, headers: null }
    const expected = [
      { ...common, operation: 'insert', key: '1', old: null, new: { id: '1', name: 'a' } },
      { ...common, operation: 'update', key: '2', old: { id: '1', name: 'a' }, new: { id: '2', name: 'a' } },
      { ...common, operation: 'delete', key: '2', old: { id: '2', name: 'a' }, new: null },
      { ...common, operation: 'truncate', key: null, old: null, new: null },
    ]
    const changes = await readAll(reader)
    expect(changes).toMatchObject(expected)
    expect(await readAll(other)).toEqual(
      changes.map((change) => ({ ...change, position: expect.any(String) as unknown })),
    )
    expect(changes.map((change) => change.createdAt)).toEqual(
      changes.map(() => expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/) as unknown),
    )
    expect(new Set(changes.map((change) => change.messageId)).size).toBe(4)
  })

  test('events come beside them, numbers with their digits', async () => {
    const db = database()
    const reader = await open(db, { from: 'now', topics: ['order'], decoding: 'json' })
    const typed = await open(db, { from: 'now', topics: ['order'] })
    await db.query(
      `select trunkline.emit('order', '42', 'created', '{"total": 9.90, "n": 12345678901234567890}', '{"trace": "x"}')`,
    )
    await db.query(`select trunkline.emit('other', '42', 'created', '{}')`)
    const [event, ...rest] = await readAll(reader)
    expect(rest).toEqual([])
    expect(event).toMatchObject({
      topic: 'order',
      key: '42',
      type: 'created',
      table: null,
      operation: null,
      old: null,
      new: null,
      headers: { trace: 'x' },
    })
    expect(JSON.stringify(event?.payload)).toBe('{"n":12345678901234567890,"total":9.90}')
    expect((await readAll(typed))[0]).toMatchObject({ payload: { total: 9.9 } })
  })

  test('of many types are what a SELECT gives, whatever the writer had set', async () => {
    const db = database()
    await db.query(`
      create type mood as enum ('calm', 'Über "wild"');
      create domain amount as numeric(12, 2) check (value > -1000);
      create type place as (name text, at point, n bigint);
      create type span as range (subtype = timestamptz)`)
    const columns = `
      id integer primary key, i8 bigint, n numeric, f4 real, f8 double precision, b boolean, t text, c char(5), v varchar(9), bin bytea,
      d date, ts timestamp, tz timestamptz, ti time, ttz timetz, iv interval, u uuid, j json, jb jsonb, js json[], a amount, aa amount[],
      m mood, ms mood[], p place, ps place[], r int4range, sp span, nums numeric[], big bigint[][], texts text[], ip inet, net cidr, mac macaddr,
      bits bit(3), vb bit varying(9), x xml, pt point, o oid, vec tsvector, "Odd ""näme" text, g integer generated always as (1 + 1) stored`
    await createTable(db, 'wide', columns)
    const writer = await db.connect()
    const settings = [
      '',
      "set timezone = 'Asia/Seoul'; set datestyle = 'German'; set intervalstyle = 'sql_standard'",
      "set extra_float_digits = -3; set bytea_output = 'escape'; set search_path = pg_catalog, public",
    ]
    for (const [id, setting] of settings.entries()) {
      await writer.query(setting)
      await writer.query(
        `insert into public.wide values (${id}, 9007199254740993, 'NaN', 'Infinity', 0.1::float8 + 0.2::float8, true, 'a"\\n', 'ab', 'v', '\\x00ff5c',
          '0044-03-15 BC', '2024-01-01 00:00:00.123456', '2024-01-01 00:00:00.123456+09', '24:00', '12:00+05:30', '-1 mon +2 days -03:04:05.006', md5('x')::uuid,
          '{"a":"\\u0000","b":1.10,"c":"\\ud83d"}', '{"b":1.10}', array['{"z":"\\u0000"}', '1', null]::json[], 1.5, '{1.10,null}', 'Über "wild"', '{calm}', row('x', '(1,2)', 9007199254740993),
          array[row(null, null, 1)::public.place], '[1,5)', '[2024-01-01 00:00:00.5+00,)', '{1.10,NaN}', '{{1,9007199254740993},{3,4}}', '{"a,b",null,"\\"q"}', '10.0.0.1/8', '10.0.0.0/8',
          '08:00:2b:01:02:03', '101', '10', '<a>1</a>', '(1.5,-2)', 4294967295, 'a:1 b:2', 'odd')`,
      )
    }
    await writer.query('insert into public.wide (id) values (99)')
    const changes = await read(db, { tables: ['wide'] })
    const present = await db.query('select * from wide order by id')
    expect(changes.map((change) => change.new)).toEqual(present)
    expect(changes.map((change) => Object.keys(change.new ?? {}))).toEqual(present.map((row) => Object.keys(row)))
    // The same without the driver: digits, and microseconds.
    const [json] = await read(db, { tables: ['wide'], decoding: 'json' })
    expect(json?.new).toMatchObject({
      i8: '9007199254740993',
      n: 'NaN',
      bin: '\\x00ff5c',
      aa: ['1.10', null],
      big: [
        ['1', '9007199254740993'],
        ['3', '4'],
      ],
    })
    expect(JSON.stringify(json)).toContain(String.raw`"j":{"a":"\u0000","b":1.10,"c":"\ud83d"},"jb":{"b":1.10}`)
    expect(json?.new?.['p']).toMatchObject({ n: '9007199254740993' })
    expect(String(json?.new?.['tz'])).toMatch(/\.123456/)
  })

  test('of several tables with other columns come in one order', async () => {
    const db = database()
    await createTable(db, 'left_side', 'a integer, b text, c bigint, primary key (b, a)')
    await createTable(db, 'right_side', 'x bigint, y integer, z integer, d jsonb')
    const tables = ['left_side', 'right_side']
    await db.query("insert into left_side values (1, 'one', 2)")
    await db.query(`insert into right_side values (3, 4, 5, '{"q":1}')`)
    await db.query('update left_side set c = 9007199254740993')
    const expected = [
      { table: 'public.left_side', key: '{"b":"one","a":1}', new: { a: 1, b: 'one', c: '2' } },
      { table: 'public.right_side', key: '{"x":3,"y":4,"z":5,"d":{"q": 1}}', new: { x: '3', y: 4, z: 5, d: { q: 1 } } },
      { table: 'public.left_side', old: { c: '2' }, new: { a: 1, b: 'one', c: '9007199254740993' } },
    ]
    expect(await read(db, { tables })).toMatchObject(expected)
    expect(await read(db, { tables, decoding: 'json' })).toMatchObject(expected)
  })

  test('follow their table through DDL', async () => {
    const db = database()
    await createTable(db, 'growing', 'id integer primary key, gone text, kept text')
    const [typed, json] = [
      await open(db, { tables: ['growing'] }),
      await open(db, { tables: ['growing'], decoding: 'json' }),
    ]
    await db.query("insert into growing values (1, 'x', 'y')")
    expect((await readAll(typed)).map((change) => change.new)).toEqual([{ id: 1, gone: 'x', kept: 'y' }])
    await db.query("insert into growing values (2, 'x', 'y')")
    await db.query(
      'alter table growing drop column gone; alter table growing add column added bigint default 7; alter table growing rename to grown',
    )
    await db.query("insert into grown (id, kept) values (3, 'z')")
    const after = [
      { table: 'public.grown', new: { id: 2, kept: 'y', added: null } },
      { table: 'public.grown', new: { id: 3, kept: 'z', added: '7' } },
    ]
    expect(await readAll(typed)).toMatchObject(after)
    const lines = await readAll(json)
    expect(lines.map((line) => line.new)).toEqual([
      { id: 1, gone: 'x', kept: 'y' },
      { id: 2, gone: 'x', kept: 'y' },
      { id: 3, kept: 'z', added: '7' },
    ])
    await db.query('drop table grown')
    for (const decoding of ['typed', 'json'] as const) {
      const left = await LogReader.open(queryableOf(db), { from: 'beginning', decoding })
      const own = (await readAll(left)).filter((change) => change.table === 'public.growing')
      expect(own.map((change) => change.new?.['id'])).toEqual([1, 2, 3])
    }
  })

  test('that their table refuses by now are a resync', async () => {
    const db = database()
    await createTable(db, 'retyped', 'id integer primary key, value text')
    await db.query(
      "insert into retyped select g, g::text from generate_series(1, 20) as g; update retyped set value = 'abc' where id = 5; update retyped set value = '5' where id = 5",
    )
    await db.query('alter table retyped alter column value type integer using value::integer')
    const changes = await read(db, { tables: ['retyped'] })
    expect(changes).toHaveLength(22)
    expect(changes.filter((change) => change.operation === 'resync').map((change) => change.key)).toEqual([null, null])
    expect(changes[4]?.new).toEqual({ id: 5, value: 5 })
  })

  test('of captures with less than the row have what was captured', async () => {
    const db = database()
    await db.query('create table secret (id integer primary key, token text, name text)')
    await db.query("select trunkline.capture('secret', 'full', '{token}')")
    await db.query('create table slim (id integer primary key, name text)')
    await db.query("select trunkline.capture('slim', 'keys')")
    await db.query(
      "insert into secret values (1, 'hush', 'a'); insert into slim values (1, 'a'); update slim set name = 'b'; update slim set id = 2",
    )
    for (const decoding of ['typed', 'json'] as const) {
      const changes = await read(db, { tables: ['secret', 'slim'], decoding })
      expect(changes.map(({ old, new: row }) => [old, row])).toEqual([
        [null, { id: 1, name: 'a' }],
        [null, { id: 1 }],
        [null, { id: 1 }],
        [{ id: 1 }, { id: 2 }],
      ])
    }
  })
})

describeEachPostgres('reading', (server) => {
  const database = useTrunklineDatabase(server)

  test('goes on behind every change it ever gave', async () => {
    const db = database()
    await createTable(db, 'step', 'id integer primary key')
    await db.query('insert into step select generate_series(1, 3)')
    await db.query('insert into step select generate_series(4, 9)')
    const changes = await read(db, { tables: ['step'] })
    expect(changes.map((change) => change.new?.['id'])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    for (const [index, change] of changes.entries()) {
      const rest = await read(db, { tables: ['step'], from: change.position })
      expect(rest.map(({ id }) => id)).toEqual(changes.slice(index + 1).map(({ id }) => id))
      expect(rest.map(({ messageId }) => messageId)).toEqual(changes.slice(index + 1).map(({ messageId }) => messageId))
    }
  })

  test('gives pages of bounded size, and always one change', async () => {
    const db = database()
    await createTable(db, 'page', 'id integer primary key, body text')
    await db.query("insert into page select g, repeat('x', 1000) from generate_series(1, 25) as g")
    await db.query("insert into page select g, repeat('y', 200000) from generate_series(26, 30) as g")
    const sizes = async (options: Partial<LogReaderOptions>): Promise<number[]> =>
      (await batchesOf(await open(db, { tables: ['page'], ...options })))
        .map((batch) => batch.changes.length)
        // Other databases of the server commit meanwhile: a look more, that finds nothing.
        .filter((size) => size > 0)
    expect(await sizes({ pageRowsMax: 10 })).toEqual([10, 10, 10])
    expect(await sizes({ pageRowsMax: 25 })).toEqual([25, 5])
    // Large values are counted as they are read, not as they are compressed.
    expect(await sizes({ pageBytesMax: 11_000 })).toEqual([10, 10, 5, 1, 1, 1, 1, 1])
    expect(await sizes({ pageBytesMax: 1 })).toHaveLength(30)
    const whole = await (await open(db, { tables: ['page'], pageRowsMax: 7 })).nextWhole()
    // Not `level`: a tick that somebody left in between makes it two steps.
    expect(whole.complete).toBe(true)
    expect(whole.changes).toHaveLength(30)
  })

  test('chooses tables and topics, or takes all, also those to come', async () => {
    const db = database()
    await createTable(db, 'one', 'id integer primary key')
    await createTable(db, 'two', 'id integer primary key')
    const all = await open(db, { from: 'now' })
    const chosen = await open(db, { from: 'now', tables: ['two'], topics: ['later', 'public.one'] })
    await db.query(
      "insert into one values (1); insert into two values (1); select trunkline.emit('later', null, null, '1')",
    )
    await createTable(db, 'three', 'id integer primary key')
    await db.query('insert into three values (1)')
    expect((await readAll(all)).map((change) => change.topic)).toEqual([
      'public.one',
      'public.two',
      'later',
      'public.three',
    ])
    expect((await readAll(chosen)).map((change) => change.topic)).toEqual(['public.one', 'public.two', 'later'])
    await db.query('create table never_captured (id integer)')
    await expect(open(db, { tables: ['never_captured'] })).rejects.toMatchObject({ code: 'not_captured' })
    await expect(open(db, { tables: ['nowhere'] })).rejects.toMatchObject({ code: 'unknown_table' })
    await expect(open(db, { schema: 'elsewhere' })).rejects.toMatchObject({ code: 'not_installed' })
  })

  test('one call at a time', async () => {
    const reader = await open(database())
    const first = reader.next()
    await expect(reader.next()).rejects.toMatchObject({ code: 'reader_busy' })
    await first
  })

  test('sees nothing of what was rolled back, and the transaction of a savepoint as its own', async () => {
    const db = database()
    await createTable(db, 'nested', 'id integer primary key')
    const client = await db.connect()
    await client.query(`begin; insert into nested values (1); savepoint a; insert into nested values (2); rollback to a;
      insert into nested values (3); savepoint b; insert into nested values (4); release b; commit`)
    await client.query('begin; insert into nested values (5); rollback')
    const changes = await read(db, { tables: ['nested'] })
    expect(changes.map((change) => change.new?.['id'])).toEqual([1, 3, 4])
    expect(new Set(changes.map((change) => change.xid)).size).toBe(1)
  })

  test('a prepared transaction comes when it is committed', async () => {
    const db = database()
    await createTable(db, 'two_phase', 'id integer primary key')
    await db.query("select trunkline.capture('two_phase', wake => 'off')")
    const reader = await open(db, { from: 'now', tables: ['two_phase'] })
    const client = await db.connect()
    await client.query(`begin; insert into two_phase values (1); prepare transaction '${db.name}'`)
    await client.query('insert into two_phase values (2)')
    expect((await readAll(reader)).map((change) => change.new?.['id'])).toEqual([2])
    await client.query(`commit prepared '${db.name}'`)
    expect((await readAll(reader)).map((change) => change.new?.['id'])).toEqual([1])
  })

  test('a tick in the middle of a transaction does not cut it', async () => {
    const db = database()
    await createTable(db, 'cut', 'id integer primary key')
    const reader = await open(db, { from: 'now', tables: ['cut'] })
    const [early, other] = [await db.connect(), await db.connect()]
    await early.query('begin; select txid_current()')
    // Ends later than it began: the snapshots that the first one takes now reach beyond its own number.
    await other.query('insert into cut values (1)')
    await early.query(
      'insert into cut values (2); insert into trunkline.tick (log_id) values (0); insert into cut values (3)',
    )
    await early.query('commit')
    await other.query('insert into cut values (4)')
    const steps: unknown[][] = []
    for (;;) {
      const batch = await reader.nextWhole()
      steps.push(batch.changes.map((change) => change.new?.['id']))
      if (batch.level) break
    }
    expect(steps).toEqual([[1], [2, 3, 4]])
  })

  test('ticks of transactions that see little do not turn the reader back', async () => {
    const db = database()
    await createTable(db, 'isolated', 'id integer primary key')
    const reader = await open(db, { from: 'now', tables: ['isolated'] })
    const [old, other] = [await db.connect(), await db.connect()]
    await old.query('begin isolation level repeatable read; select from isolated')
    for (let id = 1; id <= 3; id += 1) {
      await other.query('insert into isolated values ($1)', [id])
      await other.query('insert into trunkline.tick (log_id) values (0)')
      await old.query('insert into trunkline.tick (log_id) values (0)')
    }
    await old.query('insert into isolated values (4); commit')
    expect((await readAll(reader)).map((change) => change.new?.['id'])).toEqual([1, 2, 3, 4])
    expect((await read(db, { tables: ['isolated'] })).map((change) => change.new?.['id'])).toEqual([1, 2, 3, 4])
  })
})

describeEachPostgres('positions', (server) => {
  const database = useTrunklineDatabase(server)

  test('are checked', async () => {
    const db = database()
    const { position } = await open(db)
    expect(parsePosition(position)).toMatchObject({ from: { xmin: 1n, xmax: 1n, xip: [] } })
    for (const wrong of [
      '',
      'later',
      '1/x',
      `${position}/5`,
      `2${position}`,
      `${position} `,
      position.replace(':1:', ':x:'),
    ]) {
      await expect(open(db, { from: wrong }), wrong).rejects.toMatchObject({ code: 'invalid_position' })
    }
    const identity = parsePosition(position).identity
    const other = identity.replace(/-\d{8}-/, '-00000009-')
    await expect(open(db, { from: positionAt(other, '5:5:') })).rejects.toMatchObject({
      code: 'position_of_another_log',
      message: expect.stringContaining('its timeline is 00000009') as unknown,
    })
  })

  test('a reader that goes on notices that the log is another one', async () => {
    await using db = await createDatabase(server)
    await install(db.url)
    const reader = await open(db)
    await db.query('update trunkline.installation set id = md5(id::text)::uuid')
    await expect(reader.next()).rejects.toMatchObject({ code: 'position_of_another_log' })
  })

  test('a log that was emptied behind a position says so, the beginning is what is left', async () => {
    // Of its own: a position taken beside transactions of other databases may be called lost without need.
    await using cluster = await ownCluster(server.version as EmbeddedPostgresVersion)
    await using db = await createDatabase(cluster.server)
    await install(db.url)
    await createTable(db, 'rotated', 'id integer primary key')
    const early = await open(db, { from: 'now' })
    await db.query('insert into rotated select generate_series(1, 10)')
    const behind = await open(db, { from: 'now' })
    await db.query("update trunkline.installation set retention = '0'")
    await db.query('select trunkline.rotate()')
    await db.query('insert into rotated values (11)')
    // Two children are in use: they are read as one.
    expect((await read(db)).map((change) => change.new?.['id'])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    await db.query('select trunkline.rotate()')
    await expect(early.next()).rejects.toMatchObject({ code: 'position_lost' })
    expect((await readAll(behind)).map((change) => change.new?.['id'])).toEqual([11])
    expect((await read(db)).map((change) => change.new?.['id'])).toEqual([11])
  })

  test('stay good when a transaction that was open all the time ends', async () => {
    await using db = await createDatabase(server)
    await install(db.url)
    await createTable(db, 'spanned', 'id integer primary key')
    const long = await db.connect()
    await long.query('begin; select txid_current()')
    const reader = await open(db, { from: 'now' })
    await db.query("update trunkline.installation set retention = '0'")
    for (let id = 1; id <= 5; id += 1) {
      await db.query('insert into spanned values ($1)', [id])
      expect(await readAll(reader)).toHaveLength(1)
      await db.query('select trunkline.rotate()')
    }
    await long.query('insert into spanned values (6); commit')
    expect((await readAll(reader)).map((change) => change.new?.['id'])).toEqual([6])
  })

  test('far behind find the ticks that they need, however old those are', async () => {
    await using db = await createDatabase(server)
    await install(db.url)
    await createTable(db, 'ticking', 'id integer primary key')
    const ticks = async (): Promise<number> => (await db.query('select from trunkline.tick')).length
    await db.query(
      "insert into ticking select generate_series(1, 5000); update trunkline.installation set retention = '0'",
    )
    expect(await ticks()).toBe(1)
    await db.query('select trunkline.rotate()')
    expect(await ticks()).toBe(1)
    for (let turn = 0; turn < 6; turn += 1) {
      await db.query('insert into ticking values ($1)', [-turn])
      await db.query('select trunkline.rotate()')
    }
    expect(await ticks()).toBe(0)
  })

  test('of durable readers are saved, and hold rotation', async () => {
    await using db = await createDatabase(server)
    await install(db.url)
    await createTable(db, 'held', 'id integer primary key')
    const queryable = queryableOf(db)
    expect(await loadCheckpoint(queryable, 'trunkline', 'relay')).toBeUndefined()
    const reader = await open(db, { from: 'now', pageRowsMax: 2 })
    await saveCheckpoint(queryable, 'trunkline', 'relay', reader.position)
    await db.query("insert into held select generate_series(1, 5); update trunkline.installation set retention = '0'")
    for (let turn = 0; turn < 4; turn += 1) await db.query('select trunkline.rotate()')
    const { position } = await reader.next()
    await saveCheckpoint(queryable, 'trunkline', 'relay', position)
    const saved = await loadCheckpoint(queryable, 'trunkline', 'relay')
    expect((await read(db, { from: saved ?? '' })).map((change) => change.new?.['id'])).toEqual([3, 4, 5])
    await removeCheckpoint(queryable, 'trunkline', 'relay')
    for (let turn = 0; turn < 4; turn += 1) await db.query('select trunkline.rotate()')
    await expect(read(db, { from: saved ?? '' })).rejects.toMatchObject({ code: 'position_lost' })
  })
})

/** Blocks that the server touches for one page from a position; a scan or a sort of the backlog would show. */
async function blocksOf(db: TestDatabase, position: string): Promise<number> {
  const { from, to, afterId } = parsePosition(position)
  const text = ({ xmin, xmax, xip }: typeof from): string => `'${xmin}:${xmax}:${xip.join(',')}'`
  const client = await db.connect()
  const page = `select * from trunkline.log_page(${text(from)}, ${to === undefined ? 'null' : text(to)}, ${afterId ?? 0n}, null, 1000, 8000000)`
  await client.query(page)
  const { rows } = await client.query<{
    'QUERY PLAN': [{ Plan: { 'Shared Hit Blocks': number; 'Shared Read Blocks': number } }]
  }>(`explain (analyze, buffers, format json) ${page}`)
  await client.end()
  const plan = rows[0]!['QUERY PLAN'][0].Plan
  return plan['Shared Hit Blocks'] + plan['Shared Read Blocks']
}

describeEachPostgres('a backlog', (server) => {
  const database = useTrunklineDatabase(server)

  test(
    'is read in steps, and a page touches as little of a large one as of a small one',
    { timeout: 120_000 },
    async () => {
      const db = database()
      await createTable(db, 'backlog', 'id integer primary key, body text')
      await createTable(db, 'noise', 'id integer, body text')
      const insert = async (table: string, from: number, to: number): Promise<unknown> =>
        db.query(
          `insert into ${table} select g, 'some text of a usual length' from generate_series(${from}, ${to}) as g`,
        )
      // Bulk transactions, many small ones, both again, and a busy neighbour in between.
      await insert('backlog', 1, 30_000)
      for (let part = 0; part < 200; part += 1) await insert('backlog', 100_000 + part * 40, 100_000 + part * 40 + 39)
      await insert('noise', 1, 40_000)
      for (let part = 0; part < 300; part += 1) await insert('noise', part, part + 30)
      await Promise.all([insert('backlog', 200_000, 220_000), insert('backlog', 300_000, 320_000)])
      const reader = await open(db, { tables: ['backlog'], decoding: 'json' })
      const batches = await batchesOf(reader)
      const ids = batches.flatMap((batch) => batch.changes.map((change) => Number(change.id)))
      expect(ids).toHaveLength(30_000 + 8_000 + 40_002)
      expect(new Set(ids).size).toBe(ids.length)
      // A transaction that is a step of its own has all of its rows in one; small ones are some thousand rows together.
      expect(batches.filter((batch) => batch.complete).length).toBeGreaterThan(2)
      const blocks = []
      for (const batch of batches.filter((_, index) => index % 7 === 0)) blocks.push(await blocksOf(db, batch.position))
      expect(Math.max(...blocks)).toBeLessThan(400)
    },
  )

  test('of a transaction that is open costs nothing', async () => {
    const db = database()
    await createTable(db, 'unfinished', 'id integer')
    const writer = await db.connect()
    const { position } = await open(db, { from: 'now' })
    await writer.query('begin; insert into unfinished select generate_series(1, 50000)')
    await db.query('insert into unfinished values (0)')
    // Its rows alone are over 600.
    expect(await blocksOf(db, position)).toBeLessThan(250)
    expect((await read(db, { from: position })).map((change) => change.new?.['id'])).toEqual([0])
    await writer.query('rollback')
  })
})

describe.skipIf(lacksPgBouncer())('a reader behind PgBouncer', () => {
  describeEachPostgres('in transaction mode', (server) => {
    const database = useTrunklineDatabase(server)

    test('shares its connection with others from call to call', async () => {
      const db = database()
      await createTable(db, 'pooled', 'id integer primary key')
      await db.query('insert into pooled select generate_series(1, 50)')
      await using pooler = await startPgBouncer(db, { poolSize: 1 })
      const clients = [new pg.Client(pooler.url), new pg.Client(pooler.url)]
      await Promise.all(clients.map((client) => client.connect()))
      const reading = clients.map(async (client, index) =>
        readAll(
          await LogReader.open(client, { from: 'beginning', pageRowsMax: 3, decoding: index === 0 ? 'typed' : 'json' }),
        ),
      )
      const [typed, json] = await Promise.all(reading)
      expect(typed?.map((change) => change.new?.['id'])).toEqual(Array.from({ length: 50 }, (_, index) => index + 1))
      // A position names the snapshot of its reader; transactions of other databases come between two of them.
      const apart = (changes: readonly object[] | undefined) => changes?.map((change) => ({ ...change, position: '' }))
      expect(apart(json)).toEqual(apart(typed))
      await Promise.all(clients.map((client) => client.end()))
    })
  })
})

describeEachVersion('a reader and a standby', (version) => {
  test('the standby is refused, and after its promotion the position', { timeout: 60_000 }, async () => {
    await using primary = await ownCluster(version)
    const db = await createDatabase(primary.server)
    await install(db.url)
    await createTable(db, 'copied', 'id integer primary key')
    await db.query('insert into copied values (1)')
    const { position } = await open(db)
    await using standby = await createStandby(primary)
    await standby.untilCaughtUp()
    const url = new URL(db.url)
    url.port = String(standby.postgres.port)
    const pool = new pg.Pool({ connectionString: url.href })
    await expect(LogReader.open(pool, { from: position })).rejects.toMatchObject({ code: 'standby' })
    await standby.promote()
    await expect(LogReader.open(pool, { from: position })).rejects.toMatchObject({
      code: 'position_of_another_log',
      message: expect.stringContaining('timeline') as unknown,
    })
    const anew = await LogReader.open(pool, { from: 'beginning' })
    expect(await readAll(anew)).toHaveLength(1)
    await pool.end()
  })
})
