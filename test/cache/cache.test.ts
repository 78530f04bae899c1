import { expect, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import { captureTable } from '../../src/log/index.ts'
import { queryableOf } from '../log/captured.ts'
import { describeEachPostgres } from '../support/index.ts'
import { type AnyRow, codeOf, expectEqualToSelect, useTrunkline } from './cached.ts'

describeEachPostgres('a cache', (server) => {
  const { cached, database, logger, run, trunkline } = useTrunkline(server)

  test('by key: the bare value, or an object', async () => {
    await run('create table plain (id integer primary key, name text)', "insert into plain values (1, 'a'), (2, null)")
    const cache = await cached('plain')
    expect(cache.get(1)).toEqual({ id: 1, name: 'a' })
    expect(cache.get({ id: 2 })).toEqual({ id: 2, name: null })
    expect(cache.get({ id: 2, name: 'not looked at' })).toBe(cache.get(2))
    expect(cache.get('1')).toBe(cache.get(1))
    expect(cache.get(1n)).toBe(cache.get(1))
    expect([cache.get(3), cache.get('x'), cache.get(1.5)]).toEqual([undefined, undefined, undefined])
    expect([cache.has(1), cache.has({ id: 3 })]).toEqual([true, false])
    expect(cache.size).toBe(2)
    expect(Array.from(cache)).toEqual(Array.from(cache.values()))
    expect(cache.table).toBe('plain')
    expect(cache.status).toBe('live')
    expect(await codeOf(() => cache.get({ name: 'a' }))).toBe('invalid_key')
    expect(await codeOf(() => cache.get(null))).toBe('invalid_key')
    expect(await codeOf(() => cache.get(undefined))).toBe('invalid_key')
  })

  test('by a composite key, in any order of its columns; a missing one is named', async () => {
    await run(
      'create table code (label text, code text, group_cd text, primary key (group_cd, code))',
      "insert into code values ('one', '01', 'A'), ('two', '02', 'A'), ('other', '01', 'B')",
    )
    const cache = await cached('public.code', { indexes: { group: ['group_cd'], both: ['group_cd', 'label'] } })
    expect(cache.get({ group_cd: 'A', code: '01' })).toEqual({ label: 'one', code: '01', group_cd: 'A' })
    expect(cache.get({ code: '01', group_cd: 'B' })).toMatchObject({ label: 'other' })
    expect(cache.get({ group_cd: 'A', code: '1' })).toBeUndefined()
    expect(() => cache.get({ group_cd: 'A' })).toThrow(/"code" is missing.*\{ group_cd, code \}/)
    expect(await codeOf(() => cache.get('A'))).toBe('invalid_key')
    expect(cache.by('group', 'A').map((row) => row['label'])).toEqual(['one', 'two'])
    expect(cache.by('both', 'A', 'two')).toEqual([{ label: 'two', code: '02', group_cd: 'A' }])
    expect(cache.by('group', 'none')).toEqual([])
    // No part of one key runs into the next.
    await run("insert into code values ('x', 'b', 'a,'), ('y', ',b', 'a')")
    await cache.fresh()
    expect(cache.get({ group_cd: 'a,', code: 'b' })).toMatchObject({ label: 'x' })
    expect(cache.get({ group_cd: 'a', code: ',b' })).toMatchObject({ label: 'y' })
  })

  test('by index: nulls, numbers, texts of numbers, dates, bytes, objects; the array is kept until it changes', async () => {
    await run(
      'create table indexed (id integer primary key, kind text, big bigint, at timestamptz, raw bytea, doc jsonb, ok boolean)',
      `insert into indexed values
        (1, 'a', 9007199254740993, '2024-01-01 00:00:00+00', '\\x00ff', '{"a": 1, "b": 2}', true),
        (2, 'a', 5, '2024-01-01 00:00:00+00', '\\x00', '{"b": 2, "a": 1}', false),
        (3, null, null, null, null, null, null)`,
    )
    const indexes = {
      kind: ['kind'],
      big: ['big'],
      at: ['at'],
      raw: ['raw'],
      doc: ['doc'],
      ok: ['ok'],
      all: ['kind', 'big', 'at'],
    }
    const cache = await cached('indexed', { indexes })
    const ids = (index: string, ...values: unknown[]): unknown[] => cache.by(index, ...values).map((row) => row['id'])
    const at = new Date('2024-01-01T00:00:00Z')
    expect(ids('kind', 'a')).toEqual([1, 2])
    expect(ids('kind', null)).toEqual([3])
    expect(ids('big', 9_007_199_254_740_993n)).toEqual([1])
    expect(ids('big', '9007199254740993')).toEqual([1])
    expect([ids('big', 5), ids('big', '5'), ids('big', null)]).toEqual([[2], [2], [3]])
    expect(ids('at', at)).toEqual([1, 2])
    expect(ids('raw', Buffer.from([0, 255]))).toEqual([1])
    expect(ids('raw', new Uint8Array([0]))).toEqual([2])
    expect(ids('doc', { b: 2, a: 1 })).toEqual([1, 2])
    expect([ids('ok', true), ids('ok', false), ids('ok', null)]).toEqual([[1], [2], [3]])
    expect([ids('all', 'a', 5, at), ids('all', null, null, null)]).toEqual([[2], [3]])
    expect(ids('kind', 'null')).toEqual([])

    const before = cache.by('kind', 'a')
    expect(cache.by('kind', 'a')).toBe(before)
    expect(Object.isFrozen(before)).toBe(true)
    await run("update indexed set kind = 'b' where id = 3")
    await cache.fresh()
    expect(cache.by('kind', 'a')).toBe(before)
    await run("update indexed set kind = 'b' where id = 1", 'delete from indexed where id = 2')
    await cache.fresh()
    expect(before).toHaveLength(2)
    expect([ids('kind', 'a'), new Set(ids('kind', 'b')), ids('kind', null)]).toEqual([[], new Set([1, 3]), []])
    expect(await codeOf(() => cache.by('nothing', 1))).toBe('unknown_index')
    expect(await codeOf(() => cache.by('all', 'a'))).toBe('invalid_key')
  })

  test('keys as the driver gives them: int8, numeric, dates, bytes, spaces at the end', async () => {
    await run(
      `create table keyed_by_many (b bigint, n numeric, d date, t timestamptz, l timestamp, raw bytea, c char(5), f float8, i interval, ok boolean, u uuid,
        primary key (b, n, d, t, l, raw, c, f, i, ok, u))`,
      `insert into keyed_by_many values (9007199254740993, 1.50, '2024-02-29', '2024-01-01 10:00:00.5+00', '2024-01-01 10:00:00', '\\x00ff', E'a\\n', 1e16, '1 day', true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')`,
    )
    const cache = await cached('keyed_by_many')
    const [row] = await database().query('select * from keyed_by_many')
    expect(cache.get(row)).toEqual(row)
    expect(cache.get({ ...row, b: 9_007_199_254_740_993n, n: '1.50', c: 'a\n   ', ok: 'true' })).toEqual(row)
    expect(cache.get({ ...row, b: 1 })).toBeUndefined()
  })

  test('rows are frozen, and plain objects', async () => {
    await run('create table frozen (id integer primary key, name text)', "insert into frozen values (1, 'a')")
    const cache = await cached('frozen')
    expect(Object.isFrozen(cache.get(1))).toBe(true)
    await run("update frozen set name = 'b'")
    await cache.fresh()
    expect(Object.isFrozen(cache.get(1))).toBe(true)
    expect(cache.get(1)).toStrictEqual((await database().query('select * from frozen'))[0])
  })

  test('where: rows that do not meet it are not there, and come and go as they begin and cease to', async () => {
    await run(
      'create table some_rows (id integer primary key, amount integer, note text)',
      "insert into some_rows select n, n, 'x' from generate_series(1, 10) as n",
    )
    const cache = await cached('some_rows', { where: 'some_rows.amount > 5 -- and so on' })
    expect(cache.size).toBe(5)
    await run(
      'update some_rows set amount = amount + 1',
      'update some_rows set amount = 0 where id = 10',
      'insert into some_rows values (11, 1), (12, 99)',
    )
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from some_rows where amount > 5')
    expect([cache.has(5), cache.has(10), cache.has(11), cache.has(12)]).toEqual([true, false, false, true])
    await run('update some_rows set amount = null')
    await cache.fresh()
    expect(cache.size).toBe(0)
  })

  test('columns: those that were asked for, and the key', async () => {
    await run(
      'create table wide (a text, id integer primary key, b text, c text)',
      "insert into wide values ('a', 1, 'b', 'c')",
    )
    const cache = await cached('wide', { columns: ['c'], where: "b = 'b'" })
    expect(cache.get(1)).toEqual({ id: 1, c: 'c' })
    let changes = 0
    cache.on('change', () => (changes += 1))
    await run("update wide set a = 'other'")
    await cache.fresh()
    expect(changes).toBe(0)
    await run("update wide set c = 'C'")
    await cache.fresh()
    expect([changes, cache.get(1)]).toEqual([1, { id: 1, c: 'C' }])
    await run("alter table wide add column d text default 'd'", "update wide set c = 'CC'")
    await cache.fresh()
    expect(cache.get(1)).toEqual({ id: 1, c: 'CC' })
  })

  test('columns named as SQL, JavaScript or we ourselves use them', async () => {
    await run(
      `create table "Odd ""T ü" ("select" integer primary key, "__proto__" text, "constructor" text, "found" boolean, k text, t text, c text, x text, operation text, "trunkline operation" text, "a.b""c" text, "toString" text)`,
      `insert into "Odd ""T ü" values (1, 'p', 'c', false, 'k', 't', 'c', 'x', 'o', 'n', 'q', 's')`,
    )
    const cache = await cached('public."Odd ""T ü"', { indexes: { toString: ['toString'] } })
    await expectEqualToSelect(cache, database(), 'select * from "Odd ""T ü"')
    await run(`update "Odd ""T ü" set "__proto__" = 'P', k = 'K', "trunkline operation" = 'N'`)
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from "Odd ""T ü"')
    expect(cache.by('toString', 's')).toHaveLength(1)
    expect(await codeOf(() => cache.by('valueOf', 's'))).toBe('unknown_index')
  })

  test('a table of a key alone, and one without any column', async () => {
    await run(
      'create table only_key (id integer primary key)',
      'create table nothing ()',
      'insert into nothing default values',
    )
    const [keys, nothing] = [await cached('only_key'), await cached('nothing')]
    await run(
      'insert into only_key values (1), (2)',
      'insert into nothing default values',
      'delete from only_key where id = 1',
    )
    await Promise.all([keys.fresh(), nothing.fresh()])
    expect([Array.from(keys), Array.from(nothing)]).toEqual([[{ id: 2 }], [{}, {}]])
  })

  test('wrong names and options: an error that says which, and what to do', async () => {
    await run(
      'create table known (id integer primary key, name text, secret text)',
      'create table not_captured (id integer primary key)',
      'create view seen as select * from known',
    )
    await trunkline().capture('known', { exclude: ['secret'] })
    const open = async (
      table: string,
      options?: Parameters<ReturnType<typeof trunkline>['cache']>[1],
    ): Promise<unknown> => trunkline().cache(table, options)
    const codes = {
      none: await codeOf(open('no_such_table')),
      name: await codeOf(open('a.b.c')),
      view: await codeOf(open('seen')),
      uncaptured: await codeOf(open('not_captured')),
      column: await codeOf(open('known', { columns: ['nam'] })),
      excluded: await codeOf(open('known', { columns: ['secret'] })),
      index: await codeOf(open('known', { indexes: { i: ['nam'] } })),
      indexOfExcluded: await codeOf(open('known', { indexes: { i: ['secret'] } })),
      indexOutside: await codeOf(open('known', { columns: ['id'], indexes: { i: ['name'] } })),
      emptyIndex: await codeOf(open('known', { indexes: { i: [] } })),
      where: await codeOf(open('known', { where: 'nam = 1' })),
      whereSyntax: await codeOf(open('known', { where: 'id = = 1' })),
      whereEscape: await codeOf(open('known', { where: 'true); drop table known; --' })),
      whereType: await codeOf(open('known', { where: 'id' })),
    }
    expect(codes).toEqual({
      none: 'unknown_table',
      name: 'invalid_argument',
      view: 'not_a_table',
      uncaptured: 'not_captured',
      column: 'unknown_column',
      excluded: 'unknown_column',
      index: 'unknown_column',
      indexOfExcluded: 'unknown_column',
      indexOutside: 'unknown_column',
      emptyIndex: 'unknown_column',
      where: 'invalid_filter',
      whereSyntax: 'invalid_filter',
      whereEscape: 'invalid_filter',
      whereType: 'invalid_filter',
    })
    await expect(open('known', { columns: ['secret'] })).rejects.toThrow(
      /"secret".*excluded.*Captured columns: id, name/,
    )
    await expect(open('not_captured')).rejects.toThrow(/trunkline capture 'not_captured'/)
    // None of them left anything behind that goes wrong later.
    const cache = await trunkline().cache('known')
    expect(cache.size).toBe(0)
    expect(await database().query('select from known')).toEqual([])
  })

  test('before start: a clear error', async () => {
    await run('create table early (id integer primary key)')
    await using idle = createTrunkline({ url: database().url })
    await idle.capture('early')
    expect(await codeOf(idle.cache('early'))).toBe('not_started')
  })

  test('a role that may not read the table, or not the log', async () => {
    await run('create table private (id integer primary key)')
    await captureTable(queryableOf(database()), 'trunkline', 'private')
    const stranger = createTrunkline({ url: database().userUrl })
    expect(await codeOf(stranger.start())).toBe('no_privilege')
    await run('select trunkline.grant_reader($$app_user$$)')
    const reader = createTrunkline({ url: database().userUrl })
    await reader.start()
    expect(await codeOf(reader.cache('private'))).toBe('no_privilege')
    await run('grant select on private to app_user', 'insert into private values (1)')
    const cache = await reader.cache('private')
    await run('insert into private values (2)')
    await cache.fresh()
    expect(cache.size).toBe(2)
    await reader.stop()
  })

  test('stop and start: stopped it says so, started again it is a new copy', async () => {
    await run('create table stopped (id integer primary key)', 'insert into stopped values (1)')
    const cache = await cached('stopped')
    const open = cache.fresh({ xid: 2 ** 40 })
    const ended = expect(codeOf(open)).resolves.toBe('stopped')
    await Promise.all([cache.stop(), cache.stop()])
    await ended
    expect(cache.status).toBe('stopped')
    expect(await codeOf(() => cache.get(1))).toBe('not_started')
    expect(await codeOf(() => cache.size)).toBe('not_started')
    expect(await codeOf(cache.fresh())).toBe('not_started')
    await run('insert into stopped values (2)')
    await Promise.all([cache.start(), cache.start()])
    expect(cache.size).toBe(2)
    await run('insert into stopped values (3)')
    await cache.fresh()
    expect(cache.size).toBe(3)
  })

  test('await using: released at the end of the block', async () => {
    await run('create table scoped (id integer primary key)')
    await trunkline().capture('scoped')
    let outside
    {
      await using own = createTrunkline({ url: database().url, logger })
      await own.start()
      await using cache = await own.cache<AnyRow>('scoped')
      outside = cache
      expect(cache.status).toBe('live')
    }
    expect(outside.status).toBe('stopped')
  })

  test('trunkline itself: stopped and started again', async () => {
    await run('create table again (id integer primary key)', 'insert into again values (1)')
    const own = createTrunkline({ url: database().url })
    await own.start()
    await own.capture('again')
    const first = await own.cache('again')
    await own.stop()
    expect(first.status).toBe('stopped')
    await own.start()
    const second = await own.cache('again')
    await run('insert into again values (2)')
    await second.fresh()
    expect(second.size).toBe(2)
    await own.stop()
    await own.stop()
  })
})
