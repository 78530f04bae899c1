import { expect, test } from 'vitest'
import type { Cache, CacheChange } from '../../src/index.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { type AnyRow, codeOf, EventReplica, expectEqualToSelect, useTrunkline } from './cached.ts'

/** Everything that a cache tells from now on. */
function changesOf(cache: Cache<AnyRow>): CacheChange<AnyRow>[] {
  const heard: CacheChange<AnyRow>[] = []
  cache.on('change', (change) => heard.push(change))
  return heard
}

describeEachPostgres('changes of a cache', (server) => {
  const { cached, database, logger, run, trunkline } = useTrunkline(server)

  test('insert, update, delete: with old and new, which are the very rows that can be read', async () => {
    await run('create table told (id integer primary key, name text)', "insert into told values (1, 'a')")
    const cache = await cached('told')
    const heard = changesOf(cache)
    const before = cache.get(1)
    await run("insert into told values (2, 'b')")
    await cache.fresh()
    await run("update told set name = 'A' where id = 1")
    await cache.fresh()
    await run('delete from told where id = 2')
    await cache.fresh()
    expect(heard).toEqual([
      { operation: 'insert', old: undefined, new: { id: 2, name: 'b' } },
      { operation: 'update', old: { id: 1, name: 'a' }, new: { id: 1, name: 'A' } },
      { operation: 'delete', old: { id: 2, name: 'b' }, new: undefined },
    ])
    expect(heard[1]?.old).toBe(before)
    expect(heard[1]?.new).toBe(cache.get(1))
  })

  test('a step tells the outcome: nothing of rows that come and go, of writes that change nothing, of rollbacks', async () => {
    await run(
      'create table net (id integer primary key, name text)',
      "insert into net values (1, 'a'), (2, 'b'), (3, 'c')",
    )
    const cache = await cached('net')
    const heard = changesOf(cache)
    const steps: number[] = []
    cache.on('changes', (changes) => steps.push(changes.length))
    const client = await database().connect()
    await client.query(`begin;
      insert into net values (4, 'd'); delete from net where id = 4;
      update net set name = 'x' where id = 1; update net set name = 'a' where id = 1;
      update net set name = name;
      update net set name = 'B' where id = 2; update net set name = 'BB' where id = 2;
      delete from net where id = 3; insert into net values (3, 'C'); commit`)
    await cache.fresh()
    expect(heard).toEqual([
      { operation: 'update', old: { id: 2, name: 'b' }, new: { id: 2, name: 'BB' } },
      { operation: 'update', old: { id: 3, name: 'c' }, new: { id: 3, name: 'C' } },
    ])
    expect(steps).toEqual([2])
    const untouched = cache.get(1)
    await client.query(
      "begin; update net set name = 'never'; insert into net values (9, 'never'); truncate net; rollback",
    )
    await client.query(
      "begin; savepoint a; update net set name = 'never'; rollback to a; update net set name = 'a' where id = 1; commit",
    )
    await cache.fresh()
    expect(heard).toHaveLength(2)
    expect(cache.get(1)).toBe(untouched)
    await client.end()
  })

  test('nothing before the commit', async () => {
    await run('create table later (id integer primary key)')
    const cache = await cached('later')
    const heard = changesOf(cache)
    const client = await database().connect()
    await client.query('begin; insert into later values (1)')
    await cache.fresh()
    expect([cache.size, heard.length]).toEqual([0, 0])
    await client.query('commit')
    await eventually(() => heard.length === 1, { what: 'the change is told without being asked for' })
    expect(cache.size).toBe(1)
    await client.end()
  })

  test('several tables of one transaction become visible together, also inside of listeners', async () => {
    await run(
      'create table left_side (id integer primary key, n integer)',
      'create table right_side (n integer)',
      'insert into left_side values (1, 0)',
      'insert into right_side values (0)',
    )
    const [left, right] = [await cached('left_side'), await cached('right_side')]
    const seen: { from: string; left: unknown; right: unknown[] }[] = []
    const watch = (from: string) => (): void => {
      seen.push({ from, left: left.get(1)?.['n'], right: Array.from(right, (row) => row['n']) })
    }
    left.on('change', watch('left'))
    right.on('change', watch('right'))
    const client = await database().connect()
    for (let round = 1; round <= 50; round += 1) {
      await client.query(`begin; update left_side set n = ${round}; update right_side set n = ${round}; commit`)
      if (round % 10 === 0) await Promise.all([left.fresh(), right.fresh()])
    }
    await client.end()
    expect(seen.length).toBeGreaterThan(2)
    expect(seen.filter((one) => one.right.length !== 1 || one.left !== one.right[0])).toEqual([])
    expect(new Set(seen.map(({ from }) => from))).toEqual(new Set(['left', 'right']))
    expect([left.get(1), Array.from(right)]).toEqual([{ id: 1, n: 50 }, [{ n: 50 }]])
  })

  test('a listener that throws: the others hear it, the cache goes on, the logger is told', async () => {
    await run('create table thrown (id integer primary key)')
    const cache = await cached('thrown')
    cache.on('change', () => {
      throw new Error('my own fault')
    })
    const heard = changesOf(cache)
    await run('insert into thrown values (1)')
    await cache.fresh()
    await run('insert into thrown values (2)')
    await cache.fresh()
    expect(heard).toHaveLength(2)
    expect(logger.of('error').filter((line) => line.includes('thrown') && line.includes('my own fault'))).toHaveLength(
      2,
    )
  })

  test('once and off', async () => {
    await run('create table once_told (id integer primary key)')
    const cache = await cached('once_told')
    let [once, never] = [0, 0]
    const count = (): void => void (never += 1)
    cache.once('change', () => (once += 1))
    cache.on('change', count).off('change', count)
    await run('insert into once_told values (1), (2)')
    await cache.fresh()
    expect([once, never]).toEqual([1, 0])
  })

  test('a fresh copy tells the difference alone', async () => {
    await run(
      'create table copied (id integer primary key, name text)',
      "insert into copied values (1, 'a'), (2, 'b'), (3, 'c')",
    )
    const cache = await cached('copied')
    const heard = changesOf(cache)
    const kept = cache.get(1)
    await run(
      'alter table copied disable trigger all',
      "update copied set name = 'B' where id = 2",
      'delete from copied where id = 3',
      "insert into copied values (4, 'd')",
      'alter table copied enable trigger all',
    )
    // Other rules: readers begin anew.
    await trunkline().capture('copied', { rows: 'keys' })
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from copied')
    expect(heard.toSorted((a, b) => a.operation.localeCompare(b.operation))).toEqual([
      { operation: 'delete', old: { id: 3, name: 'c' }, new: undefined },
      { operation: 'insert', old: undefined, new: { id: 4, name: 'd' } },
      { operation: 'update', old: { id: 2, name: 'b' }, new: { id: 2, name: 'B' } },
    ])
    expect(cache.get(1)).toEqual(kept)
  })

  test.each(['full', 'keys'] as const)(
    'keys that change: swapped in one statement, moved in a chain (%s)',
    async (rows) => {
      const table = `swapped_${rows}`
      await run(
        `create table ${table} (id integer, name text, constraint ${table}_pkey primary key (id) deferrable)`,
        `insert into ${table} select n, n::text from generate_series(1, 6) as n`,
      )
      const cache = await cached(table, { indexes: { name: ['name'] } }, { rows })
      const replica = new EventReplica(cache)
      for (const statement of [
        `update ${table} set id = 3 - id where id in (1, 2)`,
        `update ${table} set id = id + 1`,
        `update ${table} set id = 10 - id, name = name || '!'`,
        `with gone as (delete from ${table} where id = 4 returning *) insert into ${table} select 44, name from gone`,
        `delete from ${table} where id = 44; insert into ${table} values (44, 'new'); update ${table} set id = 4 where id = 44`,
      ]) {
        for (const part of statement.split('; ')) await run(part)
        await cache.fresh()
        await expectEqualToSelect(cache, database(), `select * from ${table}`)
        for (const row of cache) expect(cache.get(row['id'])).toBe(row)
        for (const row of cache) expect(cache.by('name', row['name'])).toEqual([row])
        replica.expectEqualTo(cache)
      }
    },
  )

  test('a key of another text and the same value: 1.0 becomes 1.00, and case in a collation without it', async () => {
    await run(
      'create table scaled (id numeric primary key, name text)',
      "insert into scaled values (1.0, 'a'), (2, 'b')",
    )
    const cache = await cached('scaled')
    const replica = new EventReplica(cache)
    expect([cache.get('1.00'), cache.get(1), cache.get(2.0)]).toEqual([
      { id: '1.0', name: 'a' },
      { id: '1.0', name: 'a' },
      { id: '2', name: 'b' },
    ])
    await run('update scaled set id = 1.00 where id = 1')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from scaled')
    await run("update scaled set id = id * 1.000, name = 'x'")
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from scaled')
    await run('delete from scaled where id = 1', 'insert into scaled values (1.0000, $$again$$)')
    await cache.fresh()
    await expectEqualToSelect(cache, database(), 'select * from scaled')
    replica.expectEqualTo(cache)

    const [icu] = await database().query("select from pg_collation where collprovider = 'i' limit 1")
    if (icu === undefined) return
    await run(
      "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
      'create table blinded (id text collate blind primary key, n integer)',
      "insert into blinded values ('Key', 1)",
    )
    const blinded = await cached('blinded')
    const events = new EventReplica(blinded)
    for (const statement of [
      "update blinded set id = 'kEY'",
      'update blinded set n = 2',
      "delete from blinded where id = 'KEY'",
      "insert into blinded values ('key', 3)",
    ]) {
      await run(statement)
      await blinded.fresh()
      await expectEqualToSelect(blinded, database(), 'select * from blinded')
      events.expectEqualTo(blinded)
    }
  })
})

describeEachPostgres('fresh()', (server) => {
  const { cached, database, run } = useTrunkline(server)

  test('sees what another connection has committed, every time', async () => {
    await run('create table asked (id integer primary key, n integer)', 'insert into asked values (1, 0)')
    const cache = await cached('asked')
    const client = await database().connect()
    for (let n = 1; n <= 300; n += 1) {
      await client.query(`update asked set n = ${n}`)
      await cache.fresh()
      expect(cache.get(1)?.['n']).toBe(n)
    }
    await client.end()
  })

  test('many callers at once share the work, each sees its own commit', async () => {
    await run('create table shared (id serial primary key, n integer)')
    const cache = await cached('shared', { indexes: { n: ['n'] } })
    await Promise.all(
      Array.from({ length: 8 }, async (_, writer) => {
        const client = await database().connect()
        for (let round = 0; round < 40; round += 1) {
          const n = writer * 1_000 + round
          await client.query('insert into shared (n) values ($1)', [n])
          await cache.fresh()
          if (cache.by('n', n).length !== 1) expect.fail(`${n} is not there`)
        }
        await client.end()
      }),
    )
    expect(cache.size).toBe(320)
  })

  test('with the xid of an open transaction: waits for it', async () => {
    await run('create table waited (id integer primary key)')
    const cache = await cached('waited')
    const client = await database().connect()
    await client.query('begin; insert into waited values (1)')
    const { rows } = await client.query<{ xid: string }>('select txid_current()::text as xid')
    const xid = rows[0]?.xid ?? ''
    let isFresh = false
    const waiting = cache.fresh({ xid }).then(() => (isFresh = true))
    // Without the xid it is fresh: all that has committed is there.
    await cache.fresh()
    expect([isFresh, cache.size]).toEqual([false, 0])
    await client.query('commit')
    await waiting
    expect(cache.size).toBe(1)
    await cache.fresh({ xid: BigInt(xid) })
    await cache.fresh({ xid: Number(xid) })
    await client.end()
  })

  test('with the xid of a transaction that never ends: gives up in time, with a code', async () => {
    await run('create table given_up (id integer primary key)')
    const cache = await cached('given_up')
    const client = await database().connect()
    await client.query('begin; insert into given_up values (1)')
    const { rows } = await client.query<{ xid: string }>('select txid_current()::text as xid')
    const call = cache.fresh({ xid: rows[0]?.xid, timeoutMs: 50 })
    await expect(call).rejects.toThrow(/did not become fresh within 50 ms.*is still open/)
    expect(await codeOf(call)).toBe('not_fresh')
    expect(await codeOf(cache.fresh({ xid: 2n ** 40n, timeoutMs: 50 }))).toBe('not_fresh')
    await client.query('rollback')
    // All that it did is in the cache: nothing.
    await cache.fresh({ xid: rows[0]?.xid })
    expect(cache.size).toBe(0)
    expect(await codeOf(cache.fresh({ xid: 'abc' }))).toBe('invalid_argument')
    await client.end()
  })
})
