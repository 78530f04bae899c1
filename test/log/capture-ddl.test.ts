import type pg from 'pg'
import { expect, test } from 'vitest'
import { captureTable, releaseTable } from '../../src/log/capture.ts'
import { createDatabase, describeEachPostgres, type TestDatabase } from '../support/index.ts'
import { install, operationsOf, queryableOf } from './captured.ts'

/** What is done to a table while writers use it. Each leaves `id` and `note` by these names, or gives them back. */
const storm: readonly string[] = [
  'alter table T add column extra text',
  "alter table T alter column extra set default 'x'",
  'alter table T alter column extra type varchar(20)',
  'alter table T rename column extra to further',
  'alter table T drop column further',
  'alter table T alter column note type varchar(100)',
  'alter table T alter column secret type varchar(100)',
  'alter table T rename column secret to hidden',
  'alter table T drop column hidden',
  'alter table T add column secret text',
  'alter table T alter column amount type numeric(20, 4)',
  'alter table T rename column amount to total',
  'alter table T drop column total',
  'alter table T add column amount integer default 5',
  'alter table T alter column id type bigint',
  'alter table T drop constraint T_pkey',
  'alter table T rename column id to number; alter table T rename column number to id',
  'alter table T add constraint T_pkey primary key (id)',
  'alter table T rename to T_renamed; alter table T_renamed rename to T',
  'alter table T set schema other; alter table other.T set schema public',
  'alter table T drop column id cascade; alter table T add column id bigserial primary key',
  'alter table T alter column note type text using note || 1::text',
  'alter table T disable trigger user; alter table T enable trigger user',
]

/** Writes in turns until told to stop; counts what fails because of trunkline, and how much went through. */
async function write(
  client: pg.Client,
  table: string,
  state: { running: boolean; failures: unknown[]; written: number },
): Promise<void> {
  for (let n = 0; state.running; n += 1) {
    const statement = [
      `insert into ${table} (note) values ('a'), ('b')`,
      `update ${table} set note = note || 'x' where id % 7 = ${n % 7} and length(note) < 20`,
      `delete from ${table} where id % 11 = ${n % 11}`,
      `insert into ${table} (note) select 'c' where false`,
    ][n % 4]!
    try {
      await client.query(statement)
      state.written += 1
    } catch (error) {
      // The application's own: the table or column is away for the length of one statement of the storm.
      const { code, message } = error as { code?: string; message: string }
      const isOwn =
        (code === '42703' && /"(?:id|note)"|[.](?:id|note) /.test(message)) ||
        (code === '42P01' && /"(?:plain|custom|keyed|parted)"/.test(message)) ||
        code === '40P01' ||
        (code === '0A000' && message.includes('cached plan'))
      if (!isOwn) state.failures.push(message)
    }
  }
}

async function weather(
  database: TestDatabase,
  table: string,
  options: Parameters<typeof captureTable>[3],
): Promise<void> {
  await captureTable(queryableOf(database), 'trunkline', table, options)
  const state = { running: true, failures: [] as unknown[], written: 0 }
  const writers = await Promise.all(Array.from({ length: 4 }, () => database.connect()))
  const done = Promise.all(writers.map((client) => write(client, table, state)))
  const administrator = await database.connect()
  for (const statement of storm) {
    const text = statement.replaceAll(/\bT(?=_|\b)/g, table)
    const before = state.written
    await administrator.query(`begin; ${text}; commit`).catch(async (error: unknown) => {
      await administrator.query('rollback')
      // A partitioned table refuses some of it.
      if (table !== 'parted') throw error
    })
    // Writers go on between two changes.
    const deadline = Date.now() + 5000
    while (state.written < before + 8 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2))
  }
  state.running = false
  await done
  expect(state.failures).toEqual([])
  expect(state.written).toBeGreaterThan(storm.length * 8)
}

describeEachPostgres('DDL on a captured table while it is written', (server) => {
  const options = {
    plain: {},
    custom: { exclude: ['secret'], where: 'amount > 0' },
    keyed: { rows: 'keys' },
    parted: {},
  } as const

  test.each(Object.keys(options) as (keyof typeof options)[])(
    'no write fails: %s',
    { timeout: 90_000 },
    async (table) => {
      await using database = await createDatabase(server)
      await install(database.url)
      await database.query('create schema other')
      const columns = `(id serial, note text, secret text default 's', amount integer default 5, constraint ${table}_pkey primary key (id))`
      await database.query(`create table ${table} ${columns}${table === 'parted' ? ' partition by range (id)' : ''}`)
      if (table === 'parted') await database.query('create table parted_1 partition of parted default')
      await weather(database, table, options[table])
      // What could not be told row by row is told as "take a fresh copy".
      if (table === 'custom') expect(await operationsOf(database, table)).toContain('x')
      else expect(await operationsOf(database, table)).not.toContain('x')
      await captureTable(queryableOf(database), 'trunkline', table, table === 'keyed' ? options.keyed : {})
      const before = (await operationsOf(database, table)).length
      await database.query(`insert into ${table} (note) values ('last')`)
      expect((await operationsOf(database, table)).slice(before)).toBe('i')
    },
  )

  test('a captured table that is dropped', async () => {
    await using database = await createDatabase(server)
    await install(database.url)
    await database.query('create table short (id integer primary key)')
    await captureTable(queryableOf(database), 'trunkline', 'short')
    await database.query('insert into short values (1)')
    await database.query('drop table short')
    await database.query('create table short (id integer primary key); insert into short values (1)')
    await captureTable(queryableOf(database), 'trunkline', 'short')
    await database.query('insert into short values (2)')
    expect(await operationsOf(database, 'short')).toBe('i')
  })

  test('a restore brings triggers of another oid: writes go through, and captured again no row is written twice', async () => {
    await using database = await createDatabase(server)
    await install(database.url)
    const tables = { plain: 'full', keyed: 'keys', parted: 'full' } as const
    const db = queryableOf(database)
    for (const [table, rows] of Object.entries(tables)) {
      const create = `create table ${table} (id integer primary key) ${table === 'parted' ? 'partition by range (id)' : ''};
        ${table === 'parted' ? 'create table parted_1 partition of parted for values from (0) to (10)' : ''}`
      await database.query(create)
      await captureTable(db, 'trunkline', table, { rows })
      const triggers = await triggersOf(database, table)
      await database.query(`drop table ${table}`)
      await database.query(create)
      for (const trigger of triggers) await database.query(trigger)
      await database.query(`insert into ${table} values (1); update ${table} set id = 2; truncate ${table}`)
      await captureTable(db, 'trunkline', table, { rows })
      expect(await triggersOf(database, table)).toHaveLength(triggers.length)
      const before = (await operationsOf(database, table)).length
      await database.query(`insert into ${table} values (1)`)
      expect((await operationsOf(database, table)).slice(before)).toBe('i')
      // Renamed, a trigger is nobody's, too.
      const [own] = await triggersOf(database, table)
      const name = /^CREATE TRIGGER (\S+)/.exec(own ?? '')?.[1] ?? ''
      await database.query(`alter trigger ${name} on ${table} rename to mine`)
      await captureTable(db, 'trunkline', table, { rows })
      expect(await triggersOf(database, table)).toHaveLength(triggers.length)
      // Without a capture, release drops them.
      await database.query('delete from trunkline.topic')
      expect(await releaseTable(db, 'trunkline', table)).toBe(true)
      expect(await triggersOf(database, table)).toEqual([])
      expect(await releaseTable(db, 'trunkline', table)).toBe(false)
    }
  })
})

/** The definitions of its triggers, and of those of its partitions, without clones. */
async function triggersOf(database: TestDatabase, table: string): Promise<string[]> {
  const rows = await database.query<{ definition: string }>(
    `select pg_get_triggerdef(t.oid) as definition from pg_trigger as t
    where t.tgrelid in (select m.relation from trunkline.table_tree($1::regclass) as m) and not t.tgisinternal
      and not exists (select from pg_depend as d where d.objid = t.oid and d.refclassid = 'pg_trigger'::regclass)
    order by t.tgname`,
    [table],
  )
  return rows.map(({ definition }) => definition)
}
