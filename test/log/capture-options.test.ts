import { expect, test } from 'vitest'
import { captureTable, releaseTable } from '../../src/log/capture.ts'
import { backendPid, describeEachPostgres, untilBackends } from '../support/index.ts'
import { expectReplay, logOf, operationsOf, queryableOf, sqlStateOf, useTrunklineDatabase } from './captured.ts'

const schema = 'trunkline'

describeEachPostgres('capture', (server) => {
  const database = useTrunklineDatabase(server)
  const db = queryableOf({
    query: (text: string, values?: readonly unknown[]) => database().query(text, values),
  } as never)

  async function run(...statements: string[]): Promise<void> {
    for (const statement of statements) await database().query(statement)
  }

  async function imagesOf(table: string): Promise<unknown[][]> {
    return (await logOf(database(), table)).map((row) => [row.operation, row.old, row.new])
  }

  test('leaves excluded columns out of the log', async () => {
    await run('create table account (id integer primary key, password text, "To ken" text, name text)')
    await captureTable(db, schema, 'account', { exclude: ['password', 'To ken'] })
    await run(
      "insert into account values (1, 'secret', 'secret', 'a')",
      "update account set password = 'secret too'",
      "update account set name = 'b'",
      'delete from account',
    )
    expect(await imagesOf('account')).toEqual([
      ['i', null, '{"id":1,"name":"a"}'],
      ['u', '{"id":1,"name":"a"}', '{"id":1,"name":"a"}'],
      ['u', '{"id":1,"name":"a"}', '{"id":1,"name":"b"}'],
      ['d', '{"id":1,"name":"b"}', null],
    ])
  })

  test('captures the rows for which a condition holds, as they enter and leave', async () => {
    await run('create table sale (id integer primary key, country text, amount numeric)')
    await captureTable(db, schema, 'sale', { where: "country = 'KR' and amount > 0" })
    await run(
      "insert into sale values (1, 'KR', 1), (2, 'DE', 1), (3, 'KR', null), (4, 'KR', 4)",
      "update sale set country = 'KR' where id = 2",
      'update sale set amount = amount + 1',
      "update sale set country = 'FR' where id = 1",
      'update sale set id = 20 where id = 2',
      'delete from sale where id = 3',
      'delete from sale where id = 4',
    )
    await expectReplay(database(), 'sale', "country = 'KR' and amount > 0")
    expect(await operationsOf(database(), 'sale')).toBe('iiiuuudud')
    await run('truncate sale')
    expect(await operationsOf(database(), 'sale')).toMatch(/t$/)
  })

  test('keys: no values in the log, the old key when it changed', async () => {
    await run('create table page (site integer, path text, body text, primary key (site, path))')
    await captureTable(db, schema, 'page', { rows: 'keys' })
    await run(
      "insert into page values (1, '/', 'long'), (1, '/b', 'long')",
      "update page set body = 'longer' where path = '/'",
      "update page set path = '/c' where path = '/b'",
      "delete from page where path = '/'",
    )
    expect(await imagesOf('page')).toEqual([
      ['i', null, '{"site":1,"path":"/"}'],
      ['i', null, '{"site":1,"path":"/b"}'],
      ['u', null, '{"site":1,"path":"/"}'],
      ['u', '{"site":1,"path":"/b"}', '{"site":1,"path":"/c"}'],
      ['d', '{"site":1,"path":"/"}', null],
    ])
  })

  test('keys of any name, also those that the trigger function itself uses', async () => {
    const columns = ['written', 'tg_op', 'k', 'f', 'image', "o'clock", 'T ü "x" $$'].map(
      (name) => `"${name.replaceAll('"', '""')}"`,
    )
    await run(
      `create table odd_keys (${columns.map((column) => `${column} text`).join(', ')}, body text, primary key (${columns.join(', ')}))`,
    )
    await captureTable(db, schema, 'odd_keys', { rows: 'keys' })
    await run(
      `insert into odd_keys values ('1', '2', '3', '4', '5', '6', '7', 'body')`,
      `update odd_keys set body = null`,
      `update odd_keys set f = 'other'`,
      'delete from odd_keys',
    )
    const before = String.raw`{"written":"1","tg_op":"2","k":"3","f":"4","image":"5","o'clock":"6","T ü \"x\" $$":"7"}`
    const after = before.replace('"f":"4"', '"f":"other"')
    expect(await imagesOf('odd_keys')).toEqual([
      ['i', null, before],
      ['u', null, before],
      ['u', before, after],
      ['d', after, null],
    ])
  })

  test('keys that are renamed, retyped or dropped: every write goes through and is told as x, until captured anew', async () => {
    const functions = async (): Promise<number> =>
      (await database().query("select from pg_proc where proname ~ '^capture_keys_'")).length
    const before = await functions()
    await run('create table shifty (a integer, b integer, body text, primary key (a, b))')
    await captureTable(db, schema, 'shifty', { rows: 'keys' })
    expect(await functions()).toBe(before + 1)
    const writer = await database().connect()
    const write = async (second = 'c'): Promise<string> => {
      const from = (await operationsOf(database(), 'shifty')).length
      await writer.query(
        `insert into shifty (a, ${second}) values (1, 1); update shifty set body = 'y'; delete from shifty`,
      )
      return (await operationsOf(database(), 'shifty')).slice(from)
    }
    expect(await write('b')).toBe('iud')
    await run('alter table shifty alter a type bigint')
    expect(await write('b')).toBe('iud')
    await run('alter table shifty rename b to c')
    expect(await write()).toBe('xxx')
    await captureTable(db, schema, 'shifty', { rows: 'keys' })
    expect(await write()).toBe('iud')
    await run('alter table shifty drop c, add c integer default 1')
    expect(await write()).toBe('iud')
    await run('alter table shifty drop a')
    await writer.query('insert into shifty (c) values (null); truncate shifty')
    expect(await operationsOf(database(), 'shifty')).toMatch(/xt$/)
    await captureTable(db, schema, 'shifty')
    expect(await functions()).toBe(before)
    await releaseTable(db, schema, 'shifty')
  })

  test('keys, exclude and where on partitioned tables', async () => {
    await run(
      'create table event (id integer primary key, secret text, kind text) partition by range (id)',
      'create table event_1 (kind text, id integer not null, secret text)',
      'alter table event attach partition event_1 for values from (0) to (10)',
      'create table event_2 partition of event for values from (10) to (20)',
    )
    await captureTable(db, schema, 'event', { exclude: ['secret'], where: "kind <> 'noise'" })
    await run(
      "insert into event values (1, 's', 'a'), (2, 's', 'noise')",
      "update event set kind = 'a', id = 12 where id = 2",
      "update event_1 set kind = 'noise'",
    )
    expect(await imagesOf('event')).toEqual([
      ['i', null, '{"kind":"a","id":1}'],
      ['i', null, '{"id":12,"kind":"a"}'],
      ['d', '{"kind":"a","id":1}', null],
    ])
    await captureTable(db, schema, 'event', { rows: 'keys' })
    await run("update event set secret = 'x' where id = 12")
    expect((await imagesOf('event')).at(-1)).toEqual(['u', null, '{"id":12}'])
  })

  test('is idempotent, and takes no lock when nothing changes', async () => {
    await run('create table steady (id integer primary key, name text)')
    const first = await captureTable(db, schema, 'steady', { exclude: ['name'] })
    const writer = await database().connect()
    await writer.query('begin; insert into steady values (1)')
    expect(await captureTable(db, schema, 'steady', { exclude: ['name'], timeoutMs: 0 })).toBe(first)
    await writer.query('commit')
    expect(await operationsOf(database(), 'steady')).toBe('i')
  })

  test('captures again under other rules, and tells readers', async () => {
    await run('create table moody (id integer primary key, a text, b text)')
    const topic = await captureTable(db, schema, 'moody')
    await run("insert into moody values (1, 'a', 'b')")
    expect(await captureTable(db, schema, 'moody', { exclude: ['a'] })).toBe(topic)
    await run("insert into moody values (2, 'a', 'b')")
    expect(await captureTable(db, schema, 'moody', { exclude: ['b'] })).toBe(topic)
    await run("insert into moody values (3, 'a', 'b')")
    await captureTable(db, schema, 'moody', { exclude: ['b'], where: 'id < 4' })
    await run("insert into moody values (4, 'a', 'b')")
    await captureTable(db, schema, 'moody', { rows: 'keys' })
    await captureTable(db, schema, 'moody')
    expect(await imagesOf('moody')).toEqual([
      ['i', null, '{"id":1,"a":"a","b":"b"}'],
      ['x', null, null],
      ['i', null, '{"id":2,"b":"b"}'],
      ['x', null, null],
      ['i', null, '{"id":3,"a":"a"}'],
      ['x', null, null],
      ['x', null, null],
      ['x', null, null],
    ])
  })

  test('other rules wait for writers that follow the old ones; a writer with an old snapshot writes x', async () => {
    await run('create table ruled (id integer primary key, secret text)')
    await captureTable(db, schema, 'ruled', { where: 'id > 0' })
    const writer = await database().connect()
    const old = await database().connect()
    await old.query('begin isolation level repeatable read; select 1')
    await writer.query("begin; insert into ruled values (1, 's')")
    const waiting = captureTable(db, schema, 'ruled', { exclude: ['secret'] })
    await untilBackends(database(), { where: "wait_event_type = 'Lock'" })
    await writer.query('commit')
    await waiting
    await old.query("insert into ruled values (2, 's'); commit")
    expect(await operationsOf(database(), 'ruled')).toBe('ixx')
  })

  test('release stops it, and a new capture says that rows may have changed since', async () => {
    await run('create table loose (id integer primary key)')
    expect(await releaseTable(db, schema, 'loose')).toBe(false)
    const topic = await captureTable(db, schema, 'loose')
    await run('insert into loose values (1)')
    expect(await releaseTable(db, schema, 'loose')).toBe(true)
    expect(await releaseTable(db, schema, 'loose')).toBe(false)
    await run('insert into loose values (2)')
    expect(await database().query("select from pg_trigger where tgrelid = 'loose'::regclass")).toEqual([])
    expect(await captureTable(db, schema, 'loose')).toBe(topic)
    await run('insert into loose values (3)')
    expect(await operationsOf(database(), 'loose')).toBe('ixi')
  })

  test('repairs triggers that were dropped or disabled', async () => {
    await run('create table broken (id integer primary key)')
    const topic = await captureTable(db, schema, 'broken')
    await run(
      `drop trigger trunkline_capture_${topic}_insert on broken`,
      `alter table broken disable trigger trunkline_capture_${topic}_delete`,
    )
    const missing = (): Promise<unknown[]> =>
      database().query(
        "select m.name, m.stands from trunkline.topic as t cross join lateral trunkline.missing_triggers(t) as m where t.relation = 'broken'::regclass order by 1",
      )
    expect(await missing()).toEqual([
      { name: `trunkline_capture_${topic}_delete`, stands: true },
      { name: `trunkline_capture_${topic}_insert`, stands: false },
    ])
    await captureTable(db, schema, 'broken')
    expect(await missing()).toEqual([])
    await run('insert into broken values (1)', 'delete from broken')
    expect(await operationsOf(database(), 'broken')).toBe('xid')
  })

  test('names what is wrong with its input', async () => {
    await run(
      'create table public.checked (id integer primary key, name text)',
      'create table keyless (name text)',
      'create view a_view as select 1 as one',
      'create materialized view a_matview as select 1 as one',
      'create unlogged table an_unlogged (id integer)',
      'create sequence a_sequence',
    )
    const wrong: [string, Parameters<typeof captureTable>[3], string, RegExp][] = [
      ['nowhere', {}, 'unknown_table', /public\.nowhere does not exist/],
      ['no.where', {}, 'unknown_table', /no\."where" does not exist\. Check/],
      ['Checked"', {}, 'invalid_argument', /not a table name/],
      ['a.b.c', {}, 'invalid_argument', /two parts/],
      ['', {}, 'invalid_argument', /not a table name/],
      ['a_view', {}, 'not_a_table', /is a view.*Capture the tables it reads/s],
      ['a_matview', {}, 'not_a_table', /materialized view/],
      ['a_sequence', {}, 'not_a_table', /sequence/],
      ['an_unlogged', {}, 'not_a_table', /unlogged.*set logged/s],
      ['pg_catalog.pg_class', {}, 'not_a_table', /system table/],
      ['trunkline.log', {}, 'not_a_table', /trunkline itself/],
      ['checked', { rows: 'some' as never }, 'invalid_argument', /expected 'full' or 'keys'/],
      ['checked', { wake: 'never' as never }, 'invalid_argument', /expected 'elided'/],
      ['checked', { exclude: ['nmae'] }, 'unknown_column', /'nmae'.*Its columns: id, name/s],
      ['checked', { exclude: ['id'] }, 'invalid_argument', /primary key/],
      ['checked', { where: 'nmae = 1' }, 'invalid_filter', /nmae/],
      ['checked', { where: 'id +' }, 'invalid_filter', /after WHERE/],
      ['checked', { where: 'id' }, 'invalid_filter', /boolean/],
      ['keyless', { rows: 'keys' }, 'invalid_argument', /no primary key/],
    ]
    for (const [table, options, code, message] of wrong) {
      const error = await captureTable(db, schema, table, options).catch((thrown: unknown) => thrown)
      expect(error, `${table} ${JSON.stringify(options)}`).toMatchObject({ code, name: 'InvalidInputError' })
      expect((error as Error).message).toMatch(message)
    }
    await expect(captureTable(db, 'nowhere', 'checked')).rejects.toMatchObject({ code: 'schema_missing' })
    expect(await database().query("select from pg_trigger where tgrelid = 'checked'::regclass")).toEqual([])
  })

  test('a table that others hold: gives up with the process ids, and stalls no writer for longer than a second', async () => {
    await run('create table held (id integer primary key)')
    const holder = await database().connect()
    const pid = await backendPid(holder)
    await holder.query('begin; insert into held values (1)')
    const capturing = captureTable(db, schema, 'held', { timeoutMs: 1500 })
    const refused = expect(capturing).rejects.toMatchObject({
      code: 'table_locked',
      retryable: true,
      details: { pids: [pid] },
    })
    await untilBackends(database(), { where: "wait_event_type = 'Lock'" })
    const started = performance.now()
    await run('insert into held values (2)')
    expect(performance.now() - started).toBeLessThan(2000)
    await refused
    await expect(capturing).rejects.toThrow(new RegExp(`held by the backends ${pid}`))
    await holder.query("prepare transaction 'held it'")
    await expect(captureTable(db, schema, 'held', { timeoutMs: 0 })).rejects.toThrow(
      /the prepared transaction 'held it'/,
    )
    await holder.query("commit prepared 'held it'")
    await captureTable(db, schema, 'held')
    await holder.query('begin; select from held')
    await expect(releaseTable(db, schema, 'held', { timeoutMs: 0 })).rejects.toMatchObject({ code: 'table_locked' })
    await holder.query('rollback')
    expect(await releaseTable(db, schema, 'held')).toBe(true)
    expect(await database().query("select current_setting('lock_timeout') as t")).toEqual([{ t: '0' }])
  })

  test('gets the lock when the holder ends in between', async () => {
    await run('create table patient (id integer primary key)')
    const holder = await database().connect()
    await holder.query('begin; insert into patient values (1)')
    const capturing = captureTable(db, schema, 'patient')
    await untilBackends(database(), { where: "wait_event_type = 'Lock'" })
    await holder.query('commit')
    await capturing
    await run('insert into patient values (2)')
    expect(await operationsOf(database(), 'patient')).toBe('i')
  })

  test('P10: a role with rights on its table only can write it, and reach nothing of trunkline', async () => {
    await run(
      'create table theirs (id integer primary key, name text)',
      'create table theirs_too (id integer primary key, name text, secret text)',
      'create table theirs_parted (id integer primary key) partition by range (id)',
      'create table theirs_1 partition of theirs_parted for values from (0) to (10)',
      'grant select, insert, update, delete, truncate on theirs, theirs_too, theirs_parted, theirs_1 to app_user',
    )
    await captureTable(db, schema, 'theirs', { wake: 'always' })
    await captureTable(db, schema, 'theirs_too', { exclude: ['secret'], where: 'id > 0' })
    await captureTable(db, schema, 'theirs_parted')
    const user = await database().connect('user')
    for (const table of ['theirs', 'theirs_too', 'theirs_parted']) {
      await user.query(
        `insert into ${table} values (1), (2); update ${table} set id = 3 where id = 2; delete from ${table} where id = 1; truncate ${table}`,
      )
      expect(await operationsOf(database(), table)).toMatch(/^iiudtx?$/)
    }
    for (const statement of [
      'select from trunkline.log',
      "insert into trunkline.log_0 (topic, operation) values (1, 'x')",
      'select from trunkline.topic',
      'delete from trunkline.reader',
      "select trunkline.capture('theirs')",
      "select trunkline.release('theirs')",
      'select trunkline.rotate()',
      "select trunkline.set_wake('off')",
      'select trunkline.log_slot()',
      "select trunkline.grant_reader('app_user')",
      'create temporary table mine (id integer); create trigger forged after insert on mine execute function trunkline.capture_truncate(1)',
    ]) {
      expect(await sqlStateOf(user.query(statement)), statement).toBe('42501')
    }
    await user.query("select trunkline.emit('topic', 'key', 'type', '{}')")
    const callable = await database().query<{ name: string }>(
      `select p.proname as name from pg_proc as p where p.pronamespace = 'trunkline'::regnamespace and has_function_privilege('app_user', p.oid, 'execute')`,
    )
    expect(callable).toEqual([{ name: 'emit' }])
  })

  test('every function that runs as its owner pins its search_path', async () => {
    const loose = await database().query(
      `select proname from pg_proc where pronamespace = 'trunkline'::regnamespace and prosecdef
        and not coalesce(proconfig::text ~ 'search_path=pg_catalog, trunkline, pg_temp', false)`,
    )
    expect(loose).toEqual([])
  })

  test('grant_reader gives a role what a reader needs, and no table of the application', async () => {
    await run('create table shown (id integer primary key)', "select trunkline.grant_reader('app_user')")
    await captureTable(db, schema, 'shown')
    await run('insert into shown values (1)')
    const user = await database().connect('user')
    for (const statement of [
      'select * from trunkline.log',
      "select * from trunkline.log_page('1:1:', null, 0, null, 10, 1000)",
      'select last_value from trunkline.log_id_seq',
      'select trunkline.log_identity(), trunkline.open_writers(), trunkline.rotate()',
      'select trunkline.table_fingerprint(relation), (trunkline.missing_triggers(t)).name from trunkline.topic as t',
      "insert into trunkline.reader (name, position, snapshot) values ('r', 'p', txid_current_snapshot()); delete from trunkline.reader",
    ]) {
      await user.query(statement)
    }
    for (const statement of ['select from shown', 'delete from trunkline.log', "select trunkline.capture('shown')"]) {
      expect(await sqlStateOf(user.query(statement)), statement).toBe('42501')
    }
    expect(await sqlStateOf(database().query("select trunkline.grant_reader('nobody_here')"))).toBe('TL005')
  })
})
