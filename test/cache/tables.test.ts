import pg from 'pg'
import { expect, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { type AnyRow, codeOf, EventReplica, expectEqualToSelect, recordingLogger, useTrunkline } from './cached.ts'

describeEachPostgres('a cache of', (server) => {
  const { cached, database, logger, run, trunkline } = useTrunkline(server)

  /** Runs each statement, and expects after it that the cache is level, also for who follows its events. */
  async function expectLevelAfterEach(
    cache: Awaited<ReturnType<typeof cached>>,
    select: string,
    statements: readonly string[],
  ): Promise<void> {
    const replica = new EventReplica(cache)
    await expectEqualToSelect(cache, database(), select)
    for (const statement of statements) {
      await run(...statement.split(';;'))
      await cache.fresh()
      await expectEqualToSelect(cache, database(), select)
      replica.expectEqualTo(cache)
    }
    expect(replica.heard).toBeGreaterThan(0)
  }

  /** A table without key is followed by images: a copy that does not fit them is made anew, which must not be the rule. */
  function expectNoFreshCopies(table: string): void {
    expect(logger.lines.filter(({ message }) => message.startsWith(`${table}:`))).toEqual([])
  }

  test('a table without key: equal rows, updates, deletes, TRUNCATE', async () => {
    await run('create table bag (name text, n integer)', "insert into bag values ('a', 1), ('a', 1), ('b', null)")
    const cache = await cached('bag', { indexes: { name: ['name'] } })
    expect(() => cache.get('a')).toThrow(/no primary key/)
    await expectLevelAfterEach(cache, 'select * from bag', [
      "insert into bag values ('a', 1), ('b', null)",
      "delete from bag where ctid = (select min(ctid) from bag where name = 'a')",
      'update bag set n = coalesce(n, 0) + 1',
      "update bag set n = n where name = 'a'",
      "update bag set name = 'c' where ctid = (select min(ctid) from bag)",
      "begin; insert into bag values ('gone', 1); delete from bag where name = 'gone'; insert into bag values ('d', 1); commit",
      'insert into bag select * from bag',
      "begin; truncate bag; insert into bag values ('a', 1); commit",
      'truncate bag',
      "insert into bag values ('z', 26)",
    ])
    expect(cache.by('name', 'z')).toEqual([{ name: 'z', n: 26 }])
    expectNoFreshCopies('bag')
  })

  test('a table without key, with where and some of its columns', async () => {
    await run(
      'create table c (name text, n integer, old text, note text)',
      "insert into c select 'x', n, 'o', 'note' from generate_series(1, 10) as n",
    )
    const cache = await cached('c', { where: 'c.n > 5 -- of them', columns: ['name', 'n'] })
    await expectLevelAfterEach(cache, 'select name, n from c where n > 5', [
      "insert into c values ('a', 1), ('a', 6)",
      'update c set n = n + 1',
      "update c set note = 'other', old = null",
      'update c set n = 0 where n > 8',
      'update c set n = 100 where n = 0',
      'delete from c where n > 99',
    ])
    expectNoFreshCopies('c')
  })

  test('a table without key, with an excluded column and a filter over it', async () => {
    await run(
      'create table unkeyed (name text, secret text, public boolean)',
      "insert into unkeyed values ('a', 's1', true), ('b', 's2', false), ('a', 's3', true)",
    )
    const cache = await cached('unkeyed', {}, { exclude: ['secret'], where: "public and secret <> 'hidden'" })
    await expectLevelAfterEach(cache, "select name, public from unkeyed where public and secret <> 'hidden'", [
      "insert into unkeyed values ('c', 's', true), ('d', 's', false), ('e', 'hidden', true)",
      "update unkeyed set secret = 'other' where name = 'a'",
      "update unkeyed set name = name || '!'",
      'update unkeyed set public = not public',
      "update unkeyed set secret = 'hidden' where name like 'b%'",
      'delete from unkeyed where public',
    ])
    expectNoFreshCopies('unkeyed')
  })

  test('a table without key, with json of every kind', async () => {
    await run('create table documents (j json, js json[], b jsonb, t text)')
    const texts = [
      String.raw`{"a": "\u0000"}`,
      String.raw`"\\u0000 \ud83d\ude00 \\\u0000"`,
      String.raw`  {"b": 1, "a": [1.50, -0], "b": 2}  `,
      String.raw`"\ud800"`,
      '"@trunkline"',
    ]
    await run(
      ...texts.map(
        (text) =>
          `insert into documents values ($a$${text}$a$, array[$a$${text}$a$::json, null], '{"a": 1}', $a$${text}$a$)`,
      ),
      'insert into documents values (null, null, null, null)',
    )
    const cache = await cached('documents')
    await expectLevelAfterEach(cache, 'select * from documents', [
      "update documents set t = 'other'",
      'insert into documents select * from documents',
      'delete from documents where ctid in (select ctid from documents limit 7)',
      `update documents set js = js || js, t = null`,
      'delete from documents',
    ])
    expectNoFreshCopies('documents')
  })

  test.each(['full', 'keys'] as const)('a table that is emptied and filled in one transaction (%s)', async (rows) => {
    const table = `emptied_${rows}`
    await run(
      `create table ${table} (id integer primary key, name text)`,
      `insert into ${table} select n, n::text from generate_series(1, 20) as n`,
    )
    const cache = await cached(table, {}, { rows })
    await expectLevelAfterEach(cache, `select * from ${table}`, [
      `begin; truncate ${table}; insert into ${table} select n, n::text from generate_series(11, 30) as n; commit`,
      `begin; update ${table} set name = 'x'; truncate ${table}; insert into ${table} values (1, 'a'); truncate ${table}; insert into ${table} values (2, 'b'); commit`,
      `begin; insert into ${table} values (3, 'c'); truncate ${table}; commit`,
      `insert into ${table} values (4, 'd')`,
      `begin; truncate ${table}; rollback`,
      `begin; truncate ${table}; insert into ${table} values (4, 'd'), (5, 'e'); commit`,
    ])
  })

  test('TRUNCATE … CASCADE, foreign keys that cascade, ON CONFLICT, rules of a trigger', async () => {
    await run(
      'create table parent (id integer primary key, name text)',
      'create table child (id integer primary key, parent_id integer references parent on delete cascade on update cascade)',
      "insert into parent values (1, 'a'), (2, 'b')",
      'insert into child values (1, 1), (2, 1), (3, 2)',
    )
    const parent = await cached('parent')
    const child = await cached('child', { indexes: { parent: ['parent_id'] } })
    await run('update parent set id = 10 where id = 1')
    await child.fresh()
    expect(child.by('parent', 10)).toHaveLength(2)
    await expectLevelAfterEach(child, 'select * from child', [
      'delete from parent where id = 10',
      'truncate parent cascade',
    ])
    await expectLevelAfterEach(parent, 'select * from parent', [
      "insert into parent values (1, 'a'), (2, 'b') on conflict do nothing",
      "insert into parent values (1, 'A'), (3, 'c') on conflict (id) do update set name = excluded.name || '!'",
    ])
  })

  test('large changes, of 20,000 rows', async () => {
    await run('create table large (id integer primary key, name text)')
    const cache = await cached('large')
    await expectLevelAfterEach(cache, 'select * from large', [
      "insert into large select n, 'name ' || n from generate_series(1, 20000) as n",
      "update large set name = 'other' where id % 2 = 0",
      'update large set id = id + 20000',
      'delete from large where id % 3 = 0',
    ])
  })

  test.each(['full', 'keys'] as const)('a partitioned table (%s)', async (rows) => {
    const table = `parted_${rows}`
    await run(
      `create table ${table} (id integer, area text, name text, primary key (id, area)) partition by list (area)`,
      `create table ${table}_a partition of ${table} for values in ('a')`,
      `create table ${table}_b (name text, gone integer, area text not null, id integer not null)`,
      `alter table ${table}_b drop column gone`,
      `alter table ${table} attach partition ${table}_b for values in ('b')`,
      `create table ${table}_c (like ${table} including all)`,
      `insert into ${table}_c values (100, 'c', 'from before')`,
      `insert into ${table} values (1, 'a', 'one'), (2, 'b', 'two')`,
    )
    const cache = await cached(table, {}, { rows })
    await expectLevelAfterEach(cache, `select * from ${table}`, [
      `insert into ${table} values (3, 'a', 'three'), (4, 'b', 'four')`,
      `insert into ${table}_b values ('five', 'b', 5)`,
      `update ${table} set area = case area when 'a' then 'b' else 'a' end`,
      `update ${table}_a set name = 'through the partition'`,
      `delete from ${table} where id = 3`,
      `truncate ${table}_b`,
      `insert into ${table} select n, 'b', n::text from generate_series(50, 60) as n`,
      `alter table ${table} attach partition ${table}_c for values in ('c')`,
      `update ${table} set name = 'attached' where area = 'c'`,
      `alter table ${table} detach partition ${table}_b`,
      `alter table ${table} attach partition ${table}_b for values in ('b')`,
      `drop table ${table}_b`,
      `create table ${table}_d partition of ${table} default;;insert into ${table} values (7, 'd', 'by default')`,
      `begin; truncate ${table}; insert into ${table} values (1, 'a', 'anew'); commit`,
      `truncate ${table}`,
    ])
  })

  test('a partitioned table without key', async () => {
    await run(
      'create table log_lines (day date, line text) partition by range (day)',
      "create table log_lines_1 partition of log_lines for values from ('2024-01-01') to ('2024-02-01')",
      "create table log_lines_2 partition of log_lines for values from ('2024-02-01') to ('2024-03-01')",
    )
    const cache = await cached('log_lines')
    await expectLevelAfterEach(cache, 'select * from log_lines', [
      "insert into log_lines values ('2024-01-05', 'a'), ('2024-02-05', 'b'), ('2024-01-05', 'a')",
      "update log_lines set day = day + 31 where day < '2024-02-01'",
      "create table log_lines_3 partition of log_lines for values from ('2024-03-01') to ('2024-04-01');;insert into log_lines values ('2024-03-03', 'c')",
      'drop table log_lines_2',
      'truncate log_lines_3',
    ])
  })

  test('a table that others inherit from', async () => {
    await run(
      'create table animal (id integer primary key, name text)',
      'create table dog (breed text) inherits (animal)',
      "insert into animal values (1, 'some')",
      "insert into dog values (2, 'rex', 'spitz')",
    )
    const cache = await cached('animal')
    await expectLevelAfterEach(cache, 'select * from animal', [
      "insert into dog values (1, 'same id', 'mutt')",
      "update animal set name = name || '!'",
      "update dog set breed = 'other'",
      'delete from dog where id = 2',
      'truncate only animal',
      "insert into animal values (3, 'x')",
      'truncate animal',
    ])
    await run('create table cat () inherits (animal)', "insert into cat values (9, 'tom')")
    await trunkline().capture('animal')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from animal')
  })

  test('generated columns, defaults, identity', async () => {
    await run(
      'create table made (id integer generated always as identity primary key, n integer default 7, double integer generated always as (n * 2) stored)',
    )
    const cache = await cached('made')
    await expectLevelAfterEach(cache, 'select * from made', [
      'insert into made default values',
      'insert into made (n) values (3)',
      'update made set n = n + 1',
    ])
  })

  test.skipIf(Number(server.version) < 18)('virtual generated columns: computed as a SELECT does', async () => {
    const shapes = {
      virtual_keyed: 'id integer primary key, ',
      virtual_keyless: 'id integer, ',
    }
    for (const [table, key] of Object.entries(shapes)) {
      await run(`create table ${table} (${key}n integer, double integer generated always as (n * 2) virtual)`)
      const cache = await cached(table)
      const statements = [
        `insert into ${table} values (1, 1), (2, 2), (3, null)`,
        `update ${table} set n = coalesce(n, 0) + 1`,
        `delete from ${table} where double = 2`,
      ]
      await expectLevelAfterEach(cache, `select * from ${table}`, statements)
      // Those beyond the filter enter and leave by the virtual column.
      const few = await cached(table, {}, { where: 'double > 5' })
      await expectLevelAfterEach(few, `select * from ${table} where double > 5`, [
        `insert into ${table} values (7, 7), (8, 1)`,
        `update ${table} set n = 10 - n`,
      ])
      await few.stop()
    }
    expectNoFreshCopies('virtual_keyless')
    // One that comes later is told, and mended by another capture; writes go on.
    await run('create table virtual_later (id integer primary key, n integer)')
    const later = await cached('virtual_later')
    await run(
      'alter table virtual_later add column double integer generated always as (n * 2) virtual',
      'insert into virtual_later values (1, 4)',
    )
    await later.fresh({ timeoutMs: 500 }).catch(() => undefined)
    expect(later.staleCause).toMatchObject({ code: 'not_captured' })
    await trunkline().capture('virtual_later')
    await later.fresh()
    await expectEqualToSelect(later, database(), 'select * from virtual_later')
  })

  test.each(['full', 'keys'] as const)('a primary key that includes further columns (%s)', async (rows) => {
    const table = `including_${rows}`
    await run(`create table ${table} (id integer, name text, note text, primary key (id) include (name))`)
    const cache = await cached(table, {}, { rows })
    await expectLevelAfterEach(cache, `select * from ${table}`, [
      `insert into ${table} values (1, 'a', 'x'), (2, null, 'y')`,
      `update ${table} set name = 'b' where id = 1`,
      `update ${table} set note = 'z' where id = 2`,
      `update ${table} set id = 3 where id = 2`,
      `delete from ${table} where id = 1`,
    ])
    expect(cache.get(3)).toMatchObject({ name: null, note: 'z' })
    const reader = await trunkline().reader({ from: 'beginning', tables: [table] })
    expect((await reader.next()).changes.map(({ key }) => key)).toEqual(['1', '2', '1', '2', '3', '1'])
    expectNoFreshCopies(table)
  })

  test('the same table twice, and in parts', async () => {
    await run(
      'create table halved (id integer primary key, n integer)',
      'insert into halved select n, n from generate_series(1, 100) as n',
    )
    await trunkline().capture('halved')
    const [all, again, low, high] = await Promise.all([
      trunkline().cache<AnyRow>('halved'),
      trunkline().cache<AnyRow>('halved'),
      trunkline().cache<AnyRow>('halved', { where: 'n <= 50' }),
      trunkline().cache<AnyRow>('halved', { where: 'n > 50' }),
    ])
    let broken = 0
    all.on('changes', () => {
      if (low.size + high.size !== all.size || again.size !== all.size) broken += 1
    })
    await run(
      'update halved set n = 101 - n',
      'delete from halved where n % 10 = 0',
      'insert into halved select n, n from generate_series(200, 220) as n',
    )
    await Promise.all([all.fresh(), low.fresh(), high.fresh()])
    expect([broken, low.size + high.size]).toEqual([0, all.size])
    await expectEqualToSelect(low, database(), 'select * from halved where n <= 50')
  })

  test('exclude and capture filter on a keyed table', async () => {
    await run(
      'create table guarded (id integer primary key, name text, secret text, public boolean)',
      "insert into guarded values (1, 'a', 's', true), (2, 'b', 's', false)",
    )
    const cache = await cached('guarded', { where: "name <> 'never'" }, { exclude: ['secret'], where: 'public' })
    await expectLevelAfterEach(cache, "select id, name, public from guarded where public and name <> 'never'", [
      "insert into guarded values (3, 'c', 's', true), (4, 'd', 's', false), (5, 'never', 's', true)",
      'update guarded set public = not public',
      "update guarded set name = name || '!'",
      'update guarded set id = id + 10',
      'delete from guarded where id > 12',
    ])
    const log = await database().query(
      "select from trunkline.log as l where l.new::text like '%secret%' or l.old::text like '%secret%'",
    )
    expect(log).toEqual([])
  })

  test('columns that are called what the statements call theirs', async () => {
    const names = ['trunkline found', 'trunkline operation', 'trunkline identity', 'old', 'new', 'xid', 'k']
    for (const [place, name] of names.entries()) {
      for (const [kind, key] of Object.entries({ typed: 'integer[]', plain: 'integer', keyless: '' })) {
        const table = `named_${kind}_${place}`
        const value = kind === 'typed' ? "'{1}'" : '1'
        await run(`create table ${table} ("${name}" ${key === '' ? 'integer' : `${key} primary key`}, n integer)`)
        const cache = await cached(table)
        await run(`insert into ${table} values (${value}, 1)`, `update ${table} set n = 2`)
        await cache.fresh()
        await expectEqualToSelect(cache, database(), `select * from ${table}`)
        await cache.stop()
      }
    }
  })

  test('a value at which a type parser fails: stale with table and column, others go on, and it recovers', async () => {
    await run('create table parsed (id integer primary key, day date)', 'create table beside (id integer primary key)')
    const strict = (text: string): string => {
      if (text.startsWith('2021')) throw new Error('no such year')
      return text
    }
    const dateOid: number = pg.types.builtins.DATE
    const types: pg.CustomTypesConfig = {
      getTypeParser: (oid: number, format?: 'text' | 'binary'): ((text: string) => unknown) =>
        oid === dateOid ? strict : (pg.types.getTypeParser(oid, format) as never),
    }
    const pool = new pg.Pool({ connectionString: database().url, types })
    pool.on('error', () => undefined)
    await using _ended = { [Symbol.asyncDispose]: async () => pool.end() }
    await using own = createTrunkline({ pool })
    await own.start()
    for (const table of ['parsed', 'beside']) await own.capture(table)
    const [cache, beside] = [await own.cache<AnyRow>('parsed'), await own.cache<AnyRow>('beside')]
    await run(
      "begin; insert into parsed values (1, '2020-01-01'), (2, '2021-01-01'); insert into beside values (1); commit",
    )
    await eventually(() => cache.status === 'stale', { what: 'it is stale' })
    expect(cache.staleCause).toMatchObject({
      code: 'undecodable_value',
      details: { table: 'public.parsed', column: 'day' },
    })
    await beside.fresh()
    expect([cache.size, beside.size]).toEqual([0, 1])
    expect(await codeOf(own.cache('parsed'))).toBe('undecodable_value')
    await run("update parsed set day = '2022-01-01' where id = 2")
    await cache.fresh({ timeoutMs: 20_000 })
    expect([...cache]).toEqual([
      { id: 1, day: '2020-01-01' },
      { id: 2, day: '2022-01-01' },
    ])
  })

  test('row level security: what the role may see, and a word about it; without a key it is refused', async () => {
    await run(
      'create table guarded_rows (id integer primary key, owner text)',
      'create table guarded_bag (owner text)',
      "insert into guarded_rows values (1, 'app_user'), (2, 'other')",
      ...['guarded_rows', 'guarded_bag'].flatMap((table) => [
        `grant select on ${table} to app_user`,
        `alter table ${table} enable row level security`,
        `create policy own on ${table} using (owner = current_user)`,
      ]),
      "select trunkline.grant_reader('app_user')",
    )
    for (const table of ['guarded_rows', 'guarded_bag']) await trunkline().capture(table)
    const told = recordingLogger()
    await using own = createTrunkline({ url: database().userUrl, logger: told })
    await own.start()
    expect(await codeOf(own.cache('guarded_bag'))).toBe('row_security')
    const cache = await own.cache<AnyRow>('guarded_rows')
    expect(told.of('warn').join()).toContain('row level security')
    expect(Array.from(cache, (row) => row['id'])).toEqual([1])
    await run(
      "insert into guarded_rows values (3, 'app_user'), (4, 'other')",
      "update guarded_rows set owner = 'other' where id = 1",
    )
    await cache.fresh()
    expect(Array.from(cache, (row) => row['id'])).toEqual([3])
    // Another policy is another table to this role.
    await run('create policy all_rows on guarded_rows using (true)')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from guarded_rows')
    // Its owner sees all, unless that is forced.
    const owners = await trunkline().cache('guarded_bag')
    await run('alter table guarded_bag force row level security')
    await owners.fresh({ timeoutMs: 500 }).catch(() => undefined)
    expect(owners.staleCause).toMatchObject({ code: 'row_security' })
  })

  test('rows of a few bytes and of a megabyte are copied alike', async () => {
    await run(
      'create table mixed (id integer primary key, text text)',
      "insert into mixed select n, case when n % 500 = 0 then repeat('x', 1000000) else 'x' end from generate_series(1, 12000) as n",
    )
    const cache = await cached('mixed')
    expect([cache.size, cache.get(12_000)?.['text']]).toEqual([12_000, 'x'.repeat(1_000_000)])
    await expectEqualToSelect(cache, database(), 'select * from mixed')
  })
})
