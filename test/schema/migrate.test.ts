import { execFileSync } from 'node:child_process'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { checkSchema, migrate, planMigration, printMigration, uninstall } from '../../src/schema/index.ts'
import {
  createDatabase,
  describeEachPostgres,
  eventually,
  isMissing,
  type TestDatabase,
  untilBackends,
} from '../support/index.ts'

const schema = 'trunkline'
const oddSchema = 'Odd "Schema ü'

function hasPsql(): boolean {
  try {
    execFileSync('psql', ['--version'])
    return true
  } catch {
    return false
  }
}

const lacksPsql = isMissing('psql', hasPsql(), 'install the package postgresql-client')

function poolOf(database: TestDatabase, url = database.url): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => undefined)
  onTestFinished(() => pool.end())
  return pool
}

/** Everything the schema holds, in words. */
async function contentOf(database: TestDatabase, name: string): Promise<string[]> {
  const rows = await database.adminQuery<{ content: string }>(
    `select c.relkind::text || ' ' || c.relname as content from pg_class as c where c.relnamespace = (select oid from pg_namespace where nspname = $1)
    union all
    select 'function ' || p.proname || ' ' || md5(p.prosrc) from pg_proc as p where p.pronamespace = (select oid from pg_namespace where nspname = $1)
    order by 1`,
    [name],
  )
  return rows.map((row) => row.content)
}

describeEachPostgres('migrate', (server) => {
  async function freshDatabase(): Promise<TestDatabase> {
    const database = await createDatabase(server)
    onTestFinished(() => database.drop())
    return database
  }

  test('installs everything once, as an owner who is no superuser', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    const first = await migrate({ pool, schema })
    expect(first.migrations.slice(0, 2)).toEqual(['0000_bookkeeping', '0001_change_log'])
    expect(first.routines).toContain('capture')
    expect(await migrate({ pool, schema })).toEqual({ schema, migrations: [], routines: [] })
    await checkSchema(pool, schema)
    const [row] = await database.query<{ channel: string }>('select channel from trunkline.installation')
    expect(row?.channel).toBe('trunkline_trunkline')
  })

  test.each([oddSchema, 'ü'.repeat(31), `a b'c;--\\d`])('works in schema %s', async (name) => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema: name })
    await checkSchema(pool, name)
    const place = pg.escapeIdentifier(name)
    await database.query('create table public.thing (id integer primary key, name text)')
    await database.query(`select ${place}.capture('thing')`)
    await database.query(
      `insert into thing values (1, 'one'); update thing set id = 2; delete from thing; truncate thing`,
    )
    const rows = await database.query(`select operation::text, old, new from ${place}.log order by id`)
    expect(rows).toEqual([
      { operation: 'i', old: null, new: { id: 1, name: 'one' } },
      { operation: 'u', old: { id: 1, name: 'one' }, new: { id: 2, name: 'one' } },
      { operation: 'd', old: { id: 2, name: 'one' }, new: null },
      { operation: 't', old: null, new: null },
    ])
    await database.query(`select ${place}.set_wake('off')`)
    expect(await uninstall({ pool, schema: name })).toMatchObject({ removed: true, released: ['public.thing'] })
  })

  test('two installations in one database stay apart', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema: 'one' })
    await migrate({ pool, schema: 'two' })
    await database.query('create table thing (id integer primary key)')
    await database.query("select one.capture('thing'), two.capture('thing')")
    await database.query('insert into thing values (1)')
    expect(await database.query('select count(*)::integer as n from one.log')).toEqual([{ n: 1 }])
    await uninstall({ pool, schema: 'one' })
    await database.query('insert into thing values (2)')
    expect(await database.query('select count(*)::integer as n from two.log')).toEqual([{ n: 2 }])
  })

  test('eight runners at once: one does the work, none fails', async () => {
    const database = await freshDatabase()
    const pools = Array.from({ length: 8 }, () => poolOf(database))
    await Promise.all(pools.map((pool) => pool.query('select')))
    const reports = await Promise.all(pools.map((pool) => migrate({ pool, schema })))
    expect(reports.filter((report) => report.migrations.length > 0)).toHaveLength(1)
    expect(reports.filter((report) => report.routines.length > 0)).toHaveLength(1)
    await checkSchema(pools[0]!, schema)
  })

  test('a runner that dies leaves nothing behind, and the next one does it', async () => {
    const database = await freshDatabase()
    const holder = await database.connect()
    await holder.query('begin')
    await holder.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`trunkline schema ${schema}`])
    const pool = poolOf(database)
    const running = expect(migrate({ pool, schema })).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
    })
    const waiting = { where: "query like '%pg_try_advisory_xact_lock%' and state like 'idle in transaction%'" }
    const [pid] = await untilBackends(database, waiting)
    await database.adminQuery('select pg_terminate_backend($1)', [pid])
    await running
    expect(await contentOf(database, schema)).toEqual([])
    const next = migrate({ pool, schema })
    await untilBackends(database, waiting)
    await holder.query('rollback')
    expect((await next).migrations).not.toEqual([])
  })

  test('a runner that waits for another one is stopped by its signal', async () => {
    const database = await freshDatabase()
    const other = await database.connect()
    await other.query('begin')
    await other.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`trunkline schema ${schema}`])
    const stopping = new AbortController()
    const waiting = migrate({ pool: poolOf(database), schema, signal: stopping.signal })
    await untilBackends(database, {
      where: "query like '%pg_try_advisory_xact_lock%' and state like 'idle in transaction%'",
    })
    stopping.abort()
    await expect(waiting).rejects.toMatchObject({ code: 'migration_busy' })
    await other.query('rollback')
    expect((await migrate({ pool: poolOf(database), schema })).migrations).not.toEqual([])
  })

  test('a failure in the middle rolls all back', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    const client = await pool.connect()
    const query = client.query.bind(client)
    const failing = new Error('the network went away')
    const spied = {
      connect: async () => ({
        query: async (text: string, values?: unknown[]) => {
          if (text.includes('.slot')) throw failing
          return query(text, values)
        },
        on: () => undefined,
        off: () => undefined,
        release: () => client.release(),
      }),
    }
    await expect(migrate({ pool: spied as unknown as pg.Pool, schema })).rejects.toMatchObject({ cause: failing })
    expect(await contentOf(database, schema)).toEqual([])
  })

  test('planMigration changes nothing', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    const plan = await planMigration({ pool, schema })
    expect(plan.migrations[0]).toBe('0000_bookkeeping')
    expect(await contentOf(database, schema)).toEqual([])
    expect(await migrate({ pool, schema })).toEqual(plan)
    expect(await planMigration({ pool, schema })).toEqual({ schema, migrations: [], routines: [] })
  })

  test('writes a routine again when its text differs', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema })
    const before = await contentOf(database, schema)
    await database.query(
      `create or replace function trunkline.wake_key(topic bigint) returns integer language sql immutable as 'select 0'`,
    )
    await database.query(`update trunkline.routine set checksum = 'other' where name = 'wake_key'`)
    await expect(checkSchema(pool, schema)).rejects.toMatchObject({ code: 'schema_older' })
    expect(await migrate({ pool, schema })).toEqual({ schema, migrations: [], routines: ['wake_key'] })
    expect(await contentOf(database, schema)).toEqual(before)
    // Written by a newer package: an older one keeps its hands off, and can be used.
    await database.query(`update trunkline.routine set checksum = 'other', version = '999.0.0' where name = 'wake_key'`)
    expect(await migrate({ pool, schema })).toEqual({ schema, migrations: [], routines: [] })
    await checkSchema(pool, schema)
  })

  test('a newer schema is refused by everything', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema })
    await database.query(`insert into trunkline.migration (number, name, checksum) values (999, '0999_future', '')`)
    for (const action of [migrate, planMigration, uninstall]) {
      await expect(action({ pool, schema })).rejects.toMatchObject({ code: 'schema_newer' })
    }
    await expect(checkSchema(pool, schema)).rejects.toThrow(/0999_future.*Use the version/s)
  })

  test('a migration that was applied with another text is refused', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema })
    await database.query(`update trunkline.migration set checksum = 'other' where number = 1`)
    await expect(migrate({ pool, schema })).rejects.toMatchObject({ code: 'migration_changed' })
  })

  test('a schema that holds something else is refused', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await database.query('create table public.thing (id integer)')
    await expect(migrate({ pool, schema: 'public' })).rejects.toMatchObject({ code: 'schema_not_empty' })
    expect(await uninstall({ pool, schema: 'public' })).toMatchObject({ removed: false })
    expect(await database.query('select count(*)::integer as n from public.thing')).toEqual([{ n: 0 }])
  })

  test('tells what is missing', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await expect(checkSchema(pool, schema)).rejects.toMatchObject({ code: 'schema_missing' })
    await expect(checkSchema(pool, schema)).rejects.toThrow(/trunkline migrate/)
    await expect(migrate({ pool: poolOf(database, database.userUrl), schema })).rejects.toMatchObject({
      code: 'no_privilege',
    })
    await expect(migrate({ pool, schema: 'x'.repeat(64) })).rejects.toMatchObject({ code: 'invalid_schema' })
    await expect(migrate({ pool, schema: '' })).rejects.toMatchObject({ code: 'invalid_schema' })
    await expect(migrate({ pool, schema: 'pg_trunkline' })).rejects.toMatchObject({ code: 'invalid_schema' })
  })

  test('works in a schema that an administrator made for a role that may not make any', async () => {
    const database = await freshDatabase()
    await database.adminQuery('create schema given authorization app_user')
    const pool = poolOf(database, database.userUrl)
    await expect(migrate({ pool, schema: 'other' })).rejects.toMatchObject({ code: 'no_privilege' })
    expect((await migrate({ pool, schema: 'given' })).migrations).not.toEqual([])
  })

  test('whoever migrates, all belongs to one owner; who may not is told who may', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    const [stranger, superuser] = [poolOf(database, database.userUrl), poolOf(database, database.adminUrl)]
    await expect(migrate({ pool: stranger, schema })).rejects.toThrow(
      /create schema "trunkline" authorization "app_user"/,
    )
    await migrate({ pool, schema })
    await expect(migrate({ pool: stranger, schema })).rejects.toThrow(/belongs to "app_owner"/)
    await database.query(`select ${schema}.grant_reader('app_user')`)
    expect(await migrate({ pool: stranger, schema })).toMatchObject({ migrations: [], routines: [] })
    await database.query(
      `drop function ${schema}.topic_rules; delete from ${schema}.routine where name = 'topic_rules'`,
    )
    const before = await contentOf(database, schema)
    await expect(migrate({ pool: stranger, schema })).rejects.toMatchObject({
      code: 'no_privilege',
      details: { role: 'app_user', owner: 'app_owner' },
    })
    expect(await contentOf(database, schema)).toEqual(before)
    expect(await migrate({ pool: superuser, schema })).toMatchObject({ routines: ['topic_rules'] })
    const owners = await database.query(
      'select distinct proowner::regrole::text as owner from pg_proc where pronamespace = $1::regnamespace',
      [schema],
    )
    expect(owners).toEqual([{ owner: 'app_owner' }])
    const [last] = await database.query<{ number: number }>(
      `select max(number)::integer as number from ${schema}.migration`,
    )
    const printed = printMigration({ schema, after: last?.number })
    const admin = await database.connect('admin')
    await expect(admin.query(printed)).rejects.toThrow(/belongs to app_owner, this is role/)
    await admin.query('rollback')
    await (await database.connect()).query(printed)
  })

  describe.skipIf(lacksPsql)('--print', () => {
    test.each([schema, oddSchema])('makes a file that psql runs, schema %s', async (name) => {
      const database = await freshDatabase()
      const twin = await freshDatabase()
      const pool = poolOf(database)
      execFileSync('psql', ['--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1', database.url], {
        input: printMigration({ schema: name }),
        stdio: ['pipe', 'inherit', 'inherit'],
        env: { ...process.env, PGCLIENTENCODING: 'LATIN1' },
      })
      expect(await migrate({ pool, schema: name })).toEqual({ schema: name, migrations: [], routines: [] })
      await checkSchema(pool, name)
      await migrate({ pool: poolOf(twin), schema: name })
      expect(await contentOf(database, name)).toEqual(await contentOf(twin, name))
    })
  })

  test('makes a file that another tool runs in a transaction of its own', async () => {
    const database = await freshDatabase()
    const client = await database.connect()
    await client.query('begin')
    await client.query(printMigration({ schema: oddSchema }))
    await client.query('commit')
    await checkSchema(poolOf(database), oddSchema)
    // Twice fails, says why, and changes nothing.
    await expect(client.query(printMigration({ schema: oddSchema }))).rejects.toMatchObject({
      code: 'TL005',
      message: expect.stringMatching(/already exists in schema .*, at migration \d+$/) as unknown,
      hint: expect.stringMatching(/--print --after \d+/) as unknown,
    })
    await client.query('rollback')
    await expect(client.query(printMigration({ schema: oddSchema, after: 0 }))).rejects.toThrow(/is for one at 0$/)
    await client.query('rollback')
    await expect(client.query(printMigration({ schema: 'elsewhere', after: 0 }))).rejects.toThrow(/has no trunkline$/)
    await client.query('rollback')
    await checkSchema(poolOf(database), oddSchema)
  })

  test('prints what comes after a migration', () => {
    const text = printMigration({ schema, after: 0 })
    expect(text).not.toContain('"trunkline".migration (\n')
    expect(text).toContain('create table "trunkline".log (')
    expect(() => printMigration({ schema, after: 999 })).toThrow(/last one is/)
  })

  test('uninstall leaves the tables as they were, without stalling writers', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await database.query(`
      create table plain (id integer primary key, name text);
      create table parted (id integer primary key) partition by range (id);
      create table parted_1 partition of parted for values from (0) to (10);
      create table root (id integer); create table child () inherits (root)`)
    const describeTables = (): Promise<unknown[]> =>
      database.query(`select c.relname, c.reltriggers, c.relacl, (select array_agg(t.tgname) from pg_trigger t where t.tgrelid = c.oid) as triggers
        from (select oid, relname, relhastriggers and exists (select from pg_trigger where tgrelid = oid) as reltriggers, relacl from pg_class where relnamespace = 'public'::regnamespace) as c order by 1`)
    const before = await describeTables()
    await migrate({ pool, schema })
    await database.query(`select trunkline.capture(t) from unnest('{plain,parted,root}'::text[]) as t`)
    await database.query(`insert into plain values (1); insert into parted values (1); insert into child values (1)`)
    const writer = await database.connect()
    await writer.query('begin; insert into plain values (2)')
    const running = uninstall({ pool, schema })
    await untilBackends(database, { where: "wait_event_type = 'Lock'" })
    // A second writer queues behind the waiting DROP TRIGGER for the lock timeout at most.
    await database.query('insert into plain values (3)')
    await writer.query('commit')
    const report = await running
    expect(report.released.toSorted()).toEqual([
      'public.child',
      'public.parted',
      'public.parted_1',
      'public.plain',
      'public.root',
    ])
    expect(await describeTables()).toEqual(before)
    expect(await database.query('select id from plain order by id')).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }])
    expect(await contentOf(database, schema)).toEqual([])
    expect(await uninstall({ pool, schema })).toMatchObject({ removed: false })
  })

  test('uninstall keeps what is not its own', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema })
    await database.query('create view public.mine as select * from trunkline.log')
    await expect(uninstall({ pool, schema })).rejects.toMatchObject({ code: 'schema_in_use' })
    await checkSchema(pool, schema)
    await database.query('drop view public.mine; create table trunkline.note (id integer)')
    expect(await uninstall({ pool, schema })).toMatchObject({ removed: true, kept: ['note'] })
    expect(await contentOf(database, schema)).toEqual(['r note'])
  })

  test('uninstall beside writers that never pause', async () => {
    const database = await freshDatabase()
    const pool = poolOf(database)
    await migrate({ pool, schema })
    await database.query('create table busy (id serial primary key, name text)')
    await database.query(`select trunkline.capture('busy')`)
    const state = { running: true }
    let written = 0
    const write = async (): Promise<void> => {
      const client = await database.connect()
      while (state.running) {
        await client.query("insert into busy (name) values ('x')")
        written += 1
      }
    }
    const writers = Promise.all([write(), write(), write()])
    await eventually(() => written > 50)
    await uninstall({ pool, schema })
    const then = written
    await eventually(() => written > then + 20)
    state.running = false
    await writers
    expect(await contentOf(database, schema)).toEqual([])
    expect(await database.query('select count(*)::integer as n from busy')).toEqual([{ n: written }])
  })
})
