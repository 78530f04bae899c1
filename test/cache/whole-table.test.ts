import pg from 'pg'
import { expect, test } from 'vitest'
import { RoundRunner } from '../../src/log/round.ts'
import { Session } from '../../src/log/session.ts'
import { TableSubscription } from '../../src/log/table-subscription.ts'
import { describeEachPostgres } from '../support/index.ts'
import { EventReplica, expectEqualToSelect, useTrunkline } from './cached.ts'

/** More changes than this, and than a fifth of the rows: a step reads the whole table. */
const many = 100

describeEachPostgres('a step of many changes', (server) => {
  const { cached, database, run } = useTrunkline(server)

  /** What a follower that has so many rows is told of one step, as the operation of each row. */
  async function stepOf(table: string, size: number, change: () => Promise<void>): Promise<unknown[]> {
    const follower = { selection: { table }, size, beginCopy() {}, stageCopy() {}, stageChanges() {}, commit() {} }
    const subscription = new TableSubscription('trunkline', { ...follower, announce() {}, stale() {} })
    const pool = new pg.Pool({ connectionString: database().url })
    const session = new Session(() => ({ connectionString: database().url }), 'step')
    const runner = new RoundRunner('trunkline', session)
    await session.connect()
    try {
      const [identity] = await database().query<{ log_identity: string }>('select trunkline.log_identity()')
      await subscription.copy(pool, identity?.log_identity, false)
      await change()
      const inFull = await operations()
      await runner.useDirect()
      const prepared = await operations()
      expect(prepared).toEqual(inFull)
      return prepared
    } finally {
      await session.close()
      await pool.end()
    }
    async function operations(): Promise<unknown[]> {
      const statement = subscription.statement(false)
      if (statement === undefined) throw new Error('There is no statement.')
      const { results } = await runner.run([statement])
      return (results[0] ?? []).map(([operation]) => operation)
    }
  }

  const numbered = (table: string, rows: number): string[] => [
    `create table ${table} (id integer primary key, name text)`,
    `insert into ${table} select n, 'name ' || n from generate_series(1, ${rows}) as n`,
  ]

  test('the whole table from a fifth of its rows on, at least 100 changes; else the keys', async () => {
    await run(...numbered('counted', 3_000))
    await cached('counted')
    const update = (rows: number) => async (): Promise<void> =>
      run(`update counted set name = name where id <= ${rows}`)
    expect(new Set(await stepOf('counted', 3_000, update(600)))).toEqual(new Set(['u']))
    const whole = await stepOf('counted', 3_000, update(601))
    expect(whole.filter((operation) => operation === 'w')).toHaveLength(1)
    expect(whole).toHaveLength(3_001)
    expect(await stepOf('counted', 10, update(many))).not.toContain('w')
    expect(await stepOf('counted', 10, update(many + 1))).toContain('w')
    expect(await stepOf('counted', 3_000, async () => run('delete from counted'))).toEqual(['w'])
  })

  test('never where it has more pages than that, or its rows are in other tables', async () => {
    await run(
      'create table wide (id integer primary key, name text)',
      'alter table wide alter name set storage external',
      "insert into wide select n, repeat('x', 100000) from generate_series(1, 50) as n",
      'create table parted (id integer primary key, name text) partition by range (id)',
      'create table parted_1 partition of parted for values from (0) to (1000)',
      "insert into parted select n, '' from generate_series(1, 500) as n",
    )
    await cached('wide', {}, { rows: 'keys' })
    await cached('parted')
    const often = async (): Promise<void> => {
      for (let time = 0; time < 8; time += 1) await run('update wide set id = id')
    }
    expect(await stepOf('wide', 50, often)).not.toContain('w')
    expect(await stepOf('parted', 500, async () => run("update parted set name = 'a'"))).not.toContain('w')
  })

  test('tells what the keys would tell: inserts, updates, deletes, moved keys, truncation', async () => {
    await run(...numbered('told', 500))
    const cache = await cached('told', { indexes: { name: ['name'] } })
    const replica = new EventReplica(cache)
    const kept = cache.get(1)
    await run(
      "begin; update told set name = 'new' where id between 101 and 400; delete from told where id between 401 and 450;" +
        "update told set id = id + 1000 where id between 451 and 500; insert into told values (5000, 'new'); commit",
    )
    const heard: string[] = []
    cache.on('change', ({ operation }) => heard.push(operation))
    await run('update told set name = name')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from told')
    replica.expectEqualTo(cache)
    expect(cache.get(1)).toBe(kept)
    expect(cache.by('name', 'new')).toHaveLength(301)
    expect(cache.by('name', 'name 401')).toEqual([])

    await run("begin; truncate told; insert into told select n, 'again' from generate_series(1, 400) as n; commit")
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from told')
    replica.expectEqualTo(cache)
    await run('delete from told')
    await cache.fresh()
    expect(cache.size).toBe(0)
    replica.expectEqualTo(cache)
  })

  test('0 and -0 are two values', async () => {
    await run(
      'create table signed (id integer primary key, x double precision)',
      'insert into signed select n, 0 from generate_series(1, 400) as n',
    )
    const cache = await cached('signed')
    const replica = new EventReplica(cache)
    for (const rows of [1, 400]) {
      await run(`update signed set x = '-0' where id <= ${rows}`)
      await cache.fresh()
      expect(cache.get(rows)).toEqual({ id: rows, x: -0 })
    }
    replica.expectEqualTo(cache)
  })

  test('with a condition, chosen columns and keys of many types', async () => {
    await run(
      `create table typed (a numeric, b timestamptz, c text, d char(5), e date, f boolean, left_out text, name json,
         primary key (a, b, c, d, e, f))`,
      `insert into typed select n / 4.0, timestamptz '2020-01-01 00:00:00.5Z' + n * interval '1 hour', 'ä' || n, 'x', date '2020-01-01' + n, n % 2 = 0, 'out', '{"a":  1}'
         from generate_series(1, 600) as n`,
    )
    const cache = await cached('typed', { where: 'a > 25', columns: ['name'] })
    const replica = new EventReplica(cache)
    const select = 'select a, b, c, d, e, f, name from typed where a > 25'
    for (const write of [
      "set timezone = 'Asia/Seoul'; update typed set name = '[1]' where a > 10",
      'update typed set a = a + 20 where a < 100',
      "update typed set a = a * 1.00, name = '2' where a < 50",
      'delete from typed where a > 40',
    ]) {
      await run(write)
      await cache.fresh()
      await expectEqualToSelect(cache, database(), select)
      replica.expectEqualTo(cache)
    }
  })

  test('keys of few changes, taken as text, are found whatever their type', async () => {
    const keys = {
      numeric: ['1.50', "'NaN'"],
      timestamptz: ["'2020-01-01 10:00+09'", "'infinity'"],
      interval: ["'1 day 02:00'", "'1 mon'"],
      float8: ['0.1', "'-Infinity'"],
      bytea: [String.raw`'\x00ff'`, "''"],
      'character(4)': ["'a'", "'b '"],
      jsonb: [`'"a"'`, `'{"a": [1]}'`],
      'integer[]': ["'{1,2}'", "'{}'"],
      '"char"': ["'a'", "'\"'"],
      text: ["''", String.raw`'"\\u0000 ä'`],
    }
    for (const [place, [type, [first = '', second = '']]] of Object.entries(keys).entries()) {
      const table = `key_${place}`
      await run(
        `create table ${table} (id ${type} primary key, n integer)`,
        `insert into ${table} values (${first}, 0)`,
      )
      const cache = await cached(table)
      for (const write of [
        `insert into ${table} values (${second}, 1)`,
        `update ${table} set n = 2 where id = ${first}`,
        `delete from ${table} where id = ${second}`,
        `update ${table} set id = ${second}`,
      ]) {
        await run(write)
        await cache.fresh()
        await expectEqualToSelect(cache, database(), `select * from ${table}`)
      }
    }
  })
})
