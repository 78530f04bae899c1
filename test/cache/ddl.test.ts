import { expect, test } from 'vitest'
import type { Cache, CacheStale } from '../../src/index.ts'
import { captureTable } from '../../src/log/index.ts'
import { queryableOf } from '../log/captured.ts'
import { describeEachPostgres, eventually, eventuallyPasses } from '../support/index.ts'
import { type AnyRow, codeOf, EventReplica, expectEqualToSelect, useTrunkline } from './cached.ts'

async function untilStale(cache: Cache<AnyRow>): Promise<CacheStale> {
  const told: CacheStale[] = []
  cache.once('stale', (stale) => told.push(stale))
  const ask = async (): Promise<boolean> => {
    // Who asks makes it look at the table at once.
    if (told.length === 0) await cache.fresh({ timeoutMs: 50 }).catch(() => undefined)
    return told.length > 0
  }
  await eventually(ask, { what: 'the cache says that it is stale' })
  const stale = told[0]!
  expect(cache.status).toBe('stale')
  expect(cache.staleCause).toBe(stale.cause)
  return stale
}

describeEachPostgres('a cache during DDL', (server) => {
  const { cached, database, run, trunkline } = useTrunkline(server)

  /** A table of three rows and the cache of it. */
  async function prepare(table: string, options?: Parameters<typeof cached>[1]): Promise<Cache<AnyRow>> {
    await run(
      `create table ${table} (id integer primary key, name text, n integer)`,
      `insert into ${table} values (1, 'a', 10), (2, 'b', 20), (3, 'c', 30)`,
    )
    return cached(table, options)
  }

  test('columns come, go, are renamed and change their type: level after each, with and without writes', async () => {
    const cache = await prepare('altered', { indexes: { n: ['n'] } })
    const replica = new EventReplica(cache)
    for (const statement of [
      "alter table altered add column note text default 'new'",
      "update altered set note = 'written' where id = 1",
      'alter table altered drop column name',
      "insert into altered values (4, 40, 'four')",
      'alter table altered rename column note to remark',
      "update altered set remark = 'after the renaming' where id = 2",
      'alter table altered alter column n type bigint',
      'update altered set n = 9007199254740993 where id = 3',
      'alter table altered alter column n type text using n::text',
      "begin; alter table altered add column extra integer; update altered set extra = id, n = 'x'; insert into altered (id, n) values (5, 'y'); commit",
      'alter table altered alter column id type bigint',
      'update altered set id = id + 9007199254740993 where id = 5',
    ]) {
      await run(statement)
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from altered')
      replica.expectEqualTo(cache)
    }
    expect(cache.get('9007199254740998')).toMatchObject({ n: 'y' })
    expect(cache.by('n', 'y')).toHaveLength(1)
    expect(cache.status).toBe('live')
  })

  test('all rows get other values in a column that keeps its type', async () => {
    const cache = await prepare('rewritten')
    const statements = [
      'alter table rewritten alter column n type integer using n + 1',
      'alter table rewritten alter column name type text using upper(name)',
      'alter table rewritten add column g integer generated always as (id + 1) stored',
    ]
    if (Number(server.version) >= 17) statements.push('alter table rewritten alter column g set expression as (id * 7)')
    for (const statement of statements) {
      await run(statement)
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from rewritten')
    }
    expect(cache.get(1)).toMatchObject({ n: 11, name: 'A' })
  })

  test('a type changes: labels of an enum, also in arrays and as a key, attributes of a composite', async () => {
    await run(
      "create type mood as enum ('sad', 'glad')",
      'create type pair as (a integer, mood mood)',
      'create domain moody as mood[]',
      'create table typed (mood mood primary key, pair pair, moods moody)',
      "insert into typed values ('sad', (1, 'sad'), '{sad,glad}')",
    )
    const cache = await cached('typed')
    for (const statement of [
      "alter type mood rename value 'sad' to 'blue'",
      "update typed set moods = '{}'",
      'alter type pair add attribute b text',
      "alter type mood add value 'so-so'",
    ]) {
      await run(statement)
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from typed')
    }
    expect(cache.get('blue')).toMatchObject({ pair: '(1,blue,)' })
  })

  test('nobody has to ask: a column that comes is there after the next look at tables', async () => {
    const cache = await prepare('unasked')
    await run("alter table unasked add column note text default 'new'")
    await eventuallyPasses(() => expect(cache.get(1)).toMatchObject({ note: 'new' }), { what: 'the column is there' })
    await run('alter table unasked drop column note', 'update unasked set n = 0')
    await eventuallyPasses(() => expect(cache.get(1)).toEqual({ id: 1, name: 'a', n: 0 }), { what: 'it is gone' })
  })

  test('a table without key: columns change while rows of other shapes are still in the log', async () => {
    await run('create table shapeless (a text, b integer)', "insert into shapeless values ('x', 1), ('x', 1)")
    const cache = await cached('shapeless')
    const replica = new EventReplica(cache)
    for (const statement of [
      "begin; insert into shapeless values ('y', 2); alter table shapeless add column c text default 'c'; update shapeless set b = b + 1; commit",
      "update shapeless set c = 'C' where a = 'y'",
      'alter table shapeless drop column b',
      "delete from shapeless where ctid = (select min(ctid) from shapeless where a = 'x')",
      'alter table shapeless rename column a to b',
      'alter table shapeless alter column b type varchar(10)',
      "insert into shapeless values ('z', 'cc')",
    ]) {
      await run(statement)
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from shapeless')
      replica.expectEqualTo(cache)
    }
  })

  test('the primary key is dropped, and comes back with other columns', async () => {
    const cache = await prepare('rekeyed')
    await run('alter table rekeyed drop constraint rekeyed_pkey', "insert into rekeyed values (1, 'a', 10)")
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from rekeyed')
    expect(await codeOf(() => cache.get(1))).toBe('no_key')
    await run(
      'delete from rekeyed where ctid = (select max(ctid) from rekeyed)',
      'alter table rekeyed add primary key (name, n)',
    )
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from rekeyed')
    expect(cache.get({ name: 'b', n: 20 })).toEqual({ id: 2, name: 'b', n: 20 })
    await run("update rekeyed set name = 'B' where n = 20")
    await cache.fresh()
    expect([cache.get({ name: 'b', n: 20 }), cache.get({ name: 'B', n: 20 })]).toEqual([
      undefined,
      { id: 2, name: 'B', n: 20 },
    ])
  })

  test('captured by key, the primary key changes: stale, and why; captured again it goes on', async () => {
    await run('create table by_key (id integer primary key, name text)', "insert into by_key values (1, 'a'), (2, 'b')")
    const cache = await cached('by_key', {}, { rows: 'keys' })
    const stale = untilStale(cache)
    await run(
      'alter table by_key drop constraint by_key_pkey, add primary key (name)',
      "update by_key set id = 3 where name = 'b'",
    )
    expect((await stale).cause).toMatchObject({ code: 'not_captured' })
    await trunkline().capture('by_key', { rows: 'keys' })
    await cache.fresh()
    expect(cache.get('b')).toEqual({ id: 3, name: 'b' })
    expect(cache.status).toBe('live')
  })

  test('renamed, moved to another schema, dropped: stale, and why; back again it goes on', async () => {
    const cache = await prepare('moved')
    await run('create schema elsewhere')
    for (const [away, back] of [
      ['alter table moved rename to moved_away', 'alter table moved_away rename to moved'],
      ['alter table moved set schema elsewhere', 'alter table elsewhere.moved set schema public'],
    ] as const) {
      const stale = untilStale(cache)
      await run(away)
      expect((await stale).cause).toMatchObject({
        code: 'unknown_table',
        message: expect.stringContaining('public.moved') as string,
      })
      // What it has is still served.
      expect(cache.get(1)).toMatchObject({ id: 1 })
      expect(await codeOf(cache.fresh({ timeoutMs: 20 }))).toBe('not_fresh')
      await run(back, 'update moved set n = n + 1')
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from moved')
      expect([cache.status, cache.staleCause]).toEqual(['live', undefined])
    }
    const stale = untilStale(cache)
    await run('drop table moved')
    expect((await stale).cause).toMatchObject({ code: 'unknown_table' })
    await run('create table moved (id text primary key)', "insert into moved values ('new')")
    await eventually(() => (cache.staleCause as { code?: string } | undefined)?.code === 'not_captured').catch(
      () => undefined,
    )
    await trunkline().capture('moved')
    await cache.fresh()
    expect(Array.from(cache)).toEqual([{ id: 'new' }])
  })

  test('another table takes its place in one transaction', async () => {
    const cache = await prepare('swapped_in')
    await run(
      'create table swapped_next (id integer primary key, name text, n integer)',
      "insert into swapped_next values (7, 'seven', 77)",
    )
    await trunkline().capture('swapped_next')
    await run(
      'begin; alter table swapped_in rename to swapped_out; alter table swapped_next rename to swapped_in; commit',
    )
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from swapped_in')
    await run("update swapped_in set name = 'new one'", "update swapped_out set name = 'old one'")
    await cache.fresh()
    expect(Array.from(cache)).toEqual([{ id: 7, name: 'new one', n: 77 }])
  })

  test('triggers dropped or disabled by hand: stale, and what to do; captured again it goes on', async () => {
    const cache = await prepare('stripped')
    for (const strip of [
      `do $$ declare t text; begin
         for t in select tgname from pg_trigger where tgrelid = 'stripped'::regclass and not tgisinternal loop
           execute format('drop trigger %I on stripped', t);
         end loop; end $$`,
      'alter table stripped disable trigger user',
    ]) {
      const stale = untilStale(cache)
      await run(strip, 'update stripped set n = n + 1')
      const { cause } = await stale
      expect(cause).toMatchObject({ code: 'not_captured' })
      expect(cause.message).toMatch(/missing, disabled or changed.*trunkline capture 'stripped'/)
      await trunkline().capture('stripped')
      await cache.fresh()
      await expectEqualToSelect(cache, database(), 'select * from stripped')
      expect(cache.status).toBe('live')
    }
  })

  test('released and captured again', async () => {
    const cache = await prepare('let_go')
    const stale = untilStale(cache)
    expect(await trunkline().release('let_go')).toBe(true)
    await run('delete from let_go where id = 1')
    expect((await stale).cause).toMatchObject({ code: 'not_captured' })
    await trunkline().capture('let_go')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from let_go')
  })

  test('captured again under other rules, while it is written', async () => {
    const cache = await prepare('ruled')
    const replica = new EventReplica(cache)
    const over = new AbortController()
    const writer = (async (): Promise<void> => {
      const client = await database().connect()
      for (let n = 0; !over.signal.aborted; n += 1) {
        await client.query(`insert into ruled values (${n + 100}, 'w', ${n % 7}) on conflict do nothing`)
        await client.query(`update ruled set n = n + 1 where id = ${(n % 50) + 100}`)
        if (n % 10 === 9) await client.query(`delete from ruled where id = ${n + 95}`)
      }
      await client.end()
    })()
    for (const [spec, select] of [
      [{ rows: 'keys' }, 'select * from ruled'],
      [{ exclude: ['name'] }, 'select id, n from ruled'],
      [{ where: 'n % 2 = 0' }, 'select * from ruled where n % 2 = 0'],
      [{ rows: 'keys', where: 'n % 3 = 0', exclude: ['name'] }, 'select id, n from ruled where n % 3 = 0'],
      [{}, 'select * from ruled'],
    ] as const) {
      await captureTable(queryableOf(database()), 'trunkline', 'ruled', spec)
      await eventuallyPasses(
        async () => {
          const client = await database().connect()
          // Nobody writes while we compare.
          await client.query('begin; lock table ruled in share mode')
          await cache.fresh()
          const expected = (await client.query(select)).rows as unknown[]
          await client.query('commit')
          await client.end()
          await expectEqualToSelect(cache, { query: () => Promise.resolve(expected) }, select)
        },
        { what: `the cache is level under ${JSON.stringify(spec)}` },
      )
    }
    over.abort()
    await writer
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from ruled')
    replica.expectEqualTo(cache)
  })

  test('an index on a column that is dropped: stale, and why', async () => {
    const cache = await prepare('indexed_away', { indexes: { n: ['n'] } })
    const stale = untilStale(cache)
    await run('alter table indexed_away drop column n')
    expect((await stale).cause).toMatchObject({ code: 'unknown_column' })
    expect(cache.by('n', 10)).toHaveLength(1)
    await run('alter table indexed_away add column n integer', 'update indexed_away set n = 5')
    await cache.fresh()
    expect(cache.by('n', 5)).toHaveLength(3)
  })

  test('other caches go on while one cannot', async () => {
    const [broken, well] = [await prepare('broken_one'), await prepare('well_one')]
    const stale = untilStale(broken)
    await run('drop table broken_one')
    await stale
    await run('update well_one set n = n + 1')
    await well.fresh()
    await expectEqualToSelect(well, database(), 'select * from well_one')
    expect(well.status).toBe('live')
    await broken.stop()
  })

  test('a primary key of excluded columns: says so', async () => {
    await run('create table hidden (id integer primary key, code text not null)', "insert into hidden values (1, 'a')")
    const cache = await cached('hidden', {}, { exclude: ['code'] })
    await run('alter table hidden drop constraint hidden_pkey', 'alter table hidden add primary key (code)')
    const { cause } = await untilStale(cache)
    expect(cause).toMatchObject({ code: 'not_captured' })
    expect(cause.message).toContain('"code" is excluded')
    await cache.stop()
  })

  test('a step that fails after each copy: who asks is told, others go on', async () => {
    await run(
      'create table unfit (id integer primary key)',
      'insert into unfit values (1)',
      // Called when a statement is planned. Copies are read over other connections than steps.
      `create function fits() returns boolean language plpgsql immutable as $$ begin
        if current_setting('application_name') = 'trunkline read' and exists (select from trunkline.installation where retention > '2 days')
        then raise exception 'unfit'; end if;
        return true;
      end $$`,
    )
    const other = await prepare('beside')
    const cache = await cached('unfit', { where: 'fits()' })
    await run("update trunkline.installation set retention = '3 days'", 'alter table unfit add column name text')
    const { cause } = await untilStale(cache)
    expect(cause.message).toContain('unfit')
    await expect(cache.fresh()).rejects.toThrow('unfit')
    await expect(trunkline().cache('unfit', { where: 'fits()' })).rejects.toThrow('unfit')
    await run("insert into beside values (4, 'd', 40)")
    await other.fresh()
    expect(other.size).toBe(4)
    await run("update trunkline.installation set retention = '1 day'", 'insert into unfit values (2)')
    await eventually(() => cache.status === 'live', { what: 'the cache is level again' })
    await cache.fresh()
    expect(cache.size).toBe(2)
  })
})
