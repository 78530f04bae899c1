import { expect, test } from 'vitest'
import { captureTable } from '../../src/log/capture.ts'
import { describeEachPostgres } from '../support/index.ts'
import { expectReplay, logOf, operationsOf, queryableOf, useTrunklineDatabase } from './captured.ts'

const schema = 'trunkline'

describeEachPostgres('captured writes', (server) => {
  const database = useTrunklineDatabase(server)

  async function capture(table: string, definition: string): Promise<void> {
    await database().query(`create table ${table} ${definition}`)
    await captureTable(queryableOf(database()), schema, table)
  }

  test('insert, update, delete carry old and new images', async () => {
    await capture('basic', '(id integer primary key, name text)')
    await database().query("insert into basic values (1, 'a'), (2, 'b')")
    await database().query("update basic set name = 'c' where id = 1")
    await database().query('delete from basic where id = 2')
    const rows = (await logOf(database(), 'basic')).map((row) => [row.operation, row.old, row.new])
    expect(rows).toEqual([
      ['i', null, '{"id":1,"name":"a"}'],
      ['i', null, '{"id":2,"name":"b"}'],
      ['u', '{"id":1,"name":"a"}', '{"id":1,"name":"c"}'],
      ['d', '{"id":2,"name":"b"}', null],
    ])
    await expectReplay(database(), 'basic')
  })

  test('a statement that changes nothing writes nothing, and no tick', async () => {
    await capture('idle', '(id integer primary key)')
    await database().query('insert into idle select 1 where false')
    await database().query('update idle set id = 2')
    await database().query('delete from idle')
    expect(await logOf(database(), 'idle')).toEqual([])
  })

  test('P1: nothing before the commit, nothing after a rollback, and only what a savepoint left', async () => {
    await capture('atomic', '(id integer primary key)')
    const client = await database().connect()
    await client.query('begin; insert into atomic values (1)')
    expect(await logOf(database(), 'atomic')).toEqual([])
    await client.query('rollback')
    expect(await logOf(database(), 'atomic')).toEqual([])
    await client.query(`begin; insert into atomic values (1); savepoint s; insert into atomic values (2);
      rollback to s; insert into atomic values (3); commit`)
    expect(await operationsOf(database(), 'atomic')).toBe('ii')
    const xids = new Set((await logOf(database(), 'atomic')).map((row) => row.xid))
    expect(xids.size).toBe(1)
    await expectReplay(database(), 'atomic')
  })

  test('COPY', async () => {
    await capture('copied', '(id integer primary key, name text)')
    // As a superuser, who may read from a program: the driver has no COPY of its own.
    await database().adminQuery(String.raw`copy copied from program 'printf "1\tone\n2\ttwo\n"'`)
    expect(await operationsOf(database(), 'copied')).toBe('ii')
    await expectReplay(database(), 'copied')
  })

  test('ON CONFLICT: inserted and updated rows of one statement', async () => {
    await capture('upserted', '(id integer primary key, n integer)')
    await database().query('insert into upserted values (1, 1)')
    await database().query(
      'insert into upserted values (1, 5), (2, 2), (3, 3) on conflict (id) do update set n = excluded.n, id = upserted.id + 10',
    )
    // The key that one row gave up is taken by another, in one statement.
    await database().query(
      'insert into upserted values (2, 0), (2, 7) on conflict (id) do update set id = upserted.id + 100',
    )
    await database().query('insert into upserted values (3, 9) on conflict do nothing')
    await expectReplay(database(), 'upserted')
    expect(await operationsOf(database(), 'upserted')).toMatch(/^i(?:uii|iiu)u?i?u?$/)
  })

  test.skipIf(Number(server.version) < 15)('MERGE', async () => {
    await capture('merged', '(id integer primary key deferrable, n integer)')
    await database().query('insert into merged values (1, 1), (2, 2), (3, 3)')
    await database()
      .query(`merge into merged as m using (values (1, 10), (2, null), (4, 40)) as s (id, n) on m.id = s.id
      when matched and s.n is null then delete
      when matched then update set n = s.n
      when not matched then insert values (s.id, s.n)`)
    await expectReplay(database(), 'merged')
    // A key that one row frees is taken by another, in one statement: the order in the log must say so.
    await database().query(`merge into merged as m
      using (values (1, 'delete'), (10, 'insert'), (3, 'move')) as s (id, action) on m.id = s.id
      when matched and s.action = 'delete' then delete
      when matched then update set id = 1
      when not matched then insert values (3, s.id)`)
    await expectReplay(database(), 'merged')
  })

  test('foreign keys: cascades, set null, and a row that refers to itself', async () => {
    await capture('parent', '(id integer primary key)')
    await capture(
      'child',
      '(id integer primary key, parent_id integer references parent on delete cascade on update cascade)',
    )
    await capture('loose', '(id integer primary key, parent_id integer references parent on delete set null)')
    await capture('own', '(id integer primary key, boss integer references own on update cascade on delete cascade)')
    await database().query('insert into parent values (1), (2); insert into child values (1, 1), (2, 1), (3, 2)')
    await database().query('insert into loose values (1, 1); insert into own values (1, 1), (2, 1), (3, 2)')
    await database().query('update parent set id = 10 where id = 1 and false; delete from parent where id = 1')
    await database().query('update parent set id = 20 where id = 2')
    await database().query('update own set id = id + 10 where id = 1')
    for (const table of ['parent', 'child', 'loose', 'own']) await expectReplay(database(), table)
    expect(await operationsOf(database(), 'child')).toBe('iiiddu')
    await database().query('delete from own where id = 11')
    await expectReplay(database(), 'own')
    expect(await database().query('select from own')).toHaveLength(0)
  })

  test('TRUNCATE, also by CASCADE and of several tables', async () => {
    await capture('emptied', '(id integer primary key)')
    await capture('emptied_too', '(id integer primary key, other integer references emptied)')
    await database().query('insert into emptied values (1); insert into emptied_too values (1, 1)')
    await database().query('truncate emptied cascade')
    await database().query('insert into emptied values (2)')
    await database().query('truncate emptied, emptied_too')
    await database().query('insert into emptied values (3)')
    expect(await operationsOf(database(), 'emptied')).toBe('ititi')
    expect(await operationsOf(database(), 'emptied_too')).toBe('itt')
    await expectReplay(database(), 'emptied')
    await expectReplay(database(), 'emptied_too')
  })

  test('keys that change places in one statement', async () => {
    await capture('swapped', '(id integer primary key deferrable, name text)')
    await database().query("insert into swapped select n, 'row ' || n from generate_series(1, 100) as n")
    await database().query('update swapped set id = 101 - id')
    await database().query('update swapped set id = case id when 1 then 2 when 2 then 1 end where id in (1, 2)')
    const rows = (await logOf(database(), 'swapped')).slice(100)
    expect(rows).toHaveLength(102)
    // Every pair is one row: its name does not change.
    for (const row of rows) {
      const [before, after] = [row.old, row.new].map((image) => JSON.parse(image ?? '') as { id: number; name: string })
      expect(after?.name).toBe(before?.name)
    }
    await expectReplay(database(), 'swapped')
  })

  test('composite keys, no key, generated and dropped columns', async () => {
    await capture('composite', '(a integer, b text, c integer, primary key (b, a))')
    await database().query(
      "insert into composite values (1, 'x', 1), (2, 'x', 2); update composite set a = a + 10; delete from composite where a = 11",
    )
    await expectReplay(database(), 'composite')
    expect(await database().query("select key_columns from trunkline.topic where name = 'public.composite'")).toEqual([
      { key_columns: ['b', 'a'] },
    ])

    await capture('keyless', '(n integer, gone text, name text)')
    await database().query('alter table keyless drop column gone')
    await database().query(
      "insert into keyless values (1, 'a'), (1, 'a'), (2, null); update keyless set name = 'b' where n = 1; delete from keyless where n = 2",
    )
    await expectReplay(database(), 'keyless')

    await capture('computed', '(id integer primary key, n integer, twice integer generated always as (n * 2) stored)')
    await database().query('insert into computed (id, n) values (1, 2); update computed set n = 5')
    expect((await logOf(database(), 'computed')).at(-1)?.new).toBe('{"id":1,"n":5,"twice":10}')
    await expectReplay(database(), 'computed')
  })

  test('names that need quotes, and names beyond ASCII', async () => {
    await database().query('create schema "Odd ""Schema ü"')
    const table = `"Odd ""Schema ü"."Täble.of 'things'"`
    await capture(
      table,
      `("Id" integer primary key, "näme ""x""" text, "select" text, "new" integer, "old" integer, ordinal integer, image text, n text)`,
    )
    await database().query(
      `insert into ${table} values (1, 'a', 'b', 1, 2, 3, 'i', 'n'); update ${table} set "näme ""x""" = 'c'; delete from ${table}`,
    )
    expect(await operationsOf(database(), table)).toBe('iud')
    await expectReplay(database(), table)
  })

  test("writers' triggers: BEFORE changes the row, INSTEAD goes through a view", async () => {
    await capture('adjusted', '(id integer primary key, n integer)')
    await database().query(`
      create function adjust() returns trigger language plpgsql as 'begin new.n := new.n + 1; return new; end';
      create trigger adjust before insert or update on adjusted for each row execute function adjust();
      create view adjusted_view as select * from adjusted;
      insert into adjusted_view values (1, 1); update adjusted_view set n = 5`)
    expect((await logOf(database(), 'adjusted')).map((row) => row.new)).toEqual(['{"id":1,"n":2}', '{"id":1,"n":6}'])
  })

  test('an AFTER trigger of the application that writes to the rows of the statement under way: the sum is right', async () => {
    await capture('touched', '(id integer primary key, n integer, touched integer default 0)')
    await database().query(`
      create function touch() returns trigger language plpgsql as
        'begin if pg_trigger_depth() = 1 then update touched set touched = touched + 1 where id in (new.id, new.id + 1); end if; return null; end';
      create trigger touch after insert or update on touched for each row execute function touch();
      insert into touched values (1, 1), (2, 2), (3, 3); update touched set n = n + 1`)
    // What the trigger did stands before what fired it (docs/log.md): the images of one transaction balance all the same.
    const images = new Map<string, number>()
    for (const row of await logOf(database(), 'touched')) {
      if (row.old !== null) images.set(row.old, (images.get(row.old) ?? 0) - 1)
      if (row.new !== null) images.set(row.new, (images.get(row.new) ?? 0) + 1)
    }
    const present = await database().query<{ image: string }>('select row_to_json(t)::text as image from touched as t')
    const left = new Map([...images].filter(([, count]) => count !== 0))
    expect(left).toEqual(new Map(present.map(({ image }) => [image, 1])))
  })

  test('writes by functions, by DO, by data-modifying WITH, by prepared statements', async () => {
    await capture('written', '(id integer primary key, n integer)')
    await database().query(`do $$ begin for i in 1..3 loop insert into written values (i, 0); end loop; end $$`)
    await database()
      .query(`with gone as (delete from written where id = 1 returning *), moved as (update written set n = 7 where id = 2)
      insert into written select id + 100, n from gone`)
    const client = await database().connect()
    for (let n = 0; n < 8; n += 1) {
      await client.query({ name: 'write', text: 'update written set n = $1 where id = 3', values: [n] })
    }
    await expectReplay(database(), 'written')
    expect((await operationsOf(database(), 'written')).length).toBe(3 + 3 + 8)
  })

  test('P3: the same row from many writers, in the order in which they held it', async () => {
    await capture('contended', '(id integer primary key, n integer not null)')
    await database().query('insert into contended select id, 0 from generate_series(1, 3) as id')
    const write = async (seed: number): Promise<void> => {
      const client = await database().connect()
      for (let n = 0; n < 60; n += 1) {
        const id = ((n * 7 + seed) % 3) + 1
        await client.query('begin')
        // An early transaction id, drawn before others that hold the row first.
        if (n % 2 === 0) await client.query('select txid_current()')
        await client.query('update contended set n = n + 1 where id = $1', [id])
        await client.query(n % 5 === 0 ? 'rollback' : 'commit')
      }
      await client.end()
    }
    await Promise.all(Array.from({ length: 8 }, (_, seed) => write(seed)))
    await expectReplay(database(), 'contended')
    expect(await database().query('select sum(n)::integer as sum from contended')).toEqual([{ sum: 8 * 48 }])
  })
})
