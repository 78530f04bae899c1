import { expect, test } from 'vitest'
import { captureTable } from '../../src/log/capture.ts'
import { createDatabase, describeEachPostgres, type TestDatabase } from '../support/index.ts'
import { install, queryableOf } from './captured.ts'

async function rotate(database: TestDatabase): Promise<unknown> {
  return (await database.query('select trunkline.rotate() as done'))[0]?.['done']
}

async function countsOf(database: TestDatabase): Promise<unknown> {
  const [row] = await database.query(
    'select array[(select count(*) from trunkline.log_0), (select count(*) from trunkline.log_1), (select count(*) from trunkline.log_2)]::integer[] as n',
  )
  return row?.['n']
}

/** Makes the present and former children of the log look as old as they must be. */
async function age(database: TestDatabase, by: string): Promise<void> {
  await database.query(
    'update trunkline.slot set opened_at = opened_at - $1::interval, closed_at = closed_at - $1::interval',
    [by],
  )
}

describeEachPostgres('rotation', (server) => {
  async function prepare(): Promise<TestDatabase> {
    const database = await createDatabase(server)
    await install(database.url)
    await database.query('create table thing (id serial primary key, name text)')
    await captureTable(queryableOf(database), 'trunkline', 'thing')
    return database
  }

  test('moves on at half the retention, empties what is past it, and comes round', async () => {
    await using database = await prepare()
    expect(await rotate(database)).toBe('nothing')
    // Prepared plans of a session follow, also those of functions that hold the old child's name.
    const writer = await database.connect()
    const write = async (): Promise<void> => {
      for (let n = 0; n < 7; n += 1)
        await writer.query({ name: 'write', text: 'insert into thing (name) values ($1)', values: ['x'] })
      await writer.query(
        "update thing set name = 'y' where id = 1; select trunkline.emit('topic', 'key', 'type', '{}')",
      )
    }
    await write()
    expect(await countsOf(database)).toEqual([9, 0, 0])
    await age(database, '13 hours')
    expect(await rotate(database)).toBe('rotated')
    expect(await rotate(database)).toBe('nothing')
    await write()
    expect(await countsOf(database)).toEqual([9, 9, 0])
    await age(database, '13 hours')
    expect(await rotate(database)).toBe('rotated')
    await write()
    expect(await countsOf(database)).toEqual([9, 9, 9])
    await age(database, '13 hours')
    // The first child was closed for more than a day: it is emptied, and then written again.
    expect(await rotate(database)).toBe('rotated')
    await write()
    expect(await countsOf(database)).toEqual([9, 9, 9])
    const [row] = await database.query<{ past: boolean }>(
      'select truncated_xid > 0 and truncated_xid < (select min(xid) from trunkline.log) as past from trunkline.installation',
    )
    expect(row?.past).toBe(true)
    // A day of silence: what is closed goes.
    await age(database, '25 hours')
    await rotate(database)
    expect(await countsOf(database)).toEqual([9, 0, 0])
  })

  test('retention is a row of the installation', async () => {
    await using database = await prepare()
    await database.query(
      "insert into thing (name) values ('a'); update trunkline.installation set retention = '1 minute'",
    )
    await age(database, '31 seconds')
    expect(await rotate(database)).toBe('rotated')
    await age(database, '61 seconds')
    await rotate(database)
    expect((await countsOf(database)) as number[]).toEqual([0, 0, 0])
  })

  test('a durable reader that lives holds it, a dead one does not', async () => {
    await using database = await prepare()
    await database.query(
      "insert into trunkline.reader (name, position, snapshot) values ('slow', '0', txid_current_snapshot())",
    )
    await database.query("insert into thing (name) values ('a')")
    await age(database, '13 hours')
    expect(await rotate(database)).toBe('rotated')
    await age(database, '25 hours')
    await rotate(database)
    expect(await countsOf(database)).toEqual([1, 0, 0])
    await database.query("update trunkline.reader set updated_at = now() - interval '8 days'")
    expect(await rotate(database)).toMatch(/truncated|rotated/)
    expect(await countsOf(database)).toEqual([0, 0, 0])
  })

  test('a reader that has passed it does not hold it', async () => {
    await using database = await prepare()
    await database.query("insert into thing (name) values ('a')")
    await database.query(
      "insert into trunkline.reader (name, position, snapshot) values ('quick', '0', txid_current_snapshot())",
    )
    await age(database, '13 hours')
    await rotate(database)
    await age(database, '25 hours')
    await rotate(database)
    expect(await countsOf(database)).toEqual([0, 0, 0])
  })

  test('an open transaction elsewhere, which never wrote to the log, does not make a reader hold it', async () => {
    await using database = await prepare()
    await using other = await createDatabase(server)
    const foreign = await other.connect()
    await foreign.query('begin; select txid_current()')
    const writer = await database.connect()
    await writer.query("begin; insert into thing (name) values ('open while the reader looked')")
    await database.query("insert into thing (name) values ('a')")
    await database.query(
      "insert into trunkline.reader (name, position, snapshot) values ('quick', '0', txid_current_snapshot())",
    )
    await writer.query('commit')
    await age(database, '13 hours')
    await rotate(database)
    await age(database, '25 hours')
    await rotate(database)
    expect(await countsOf(database)).toEqual([2, 0, 0])
    await database.query('update trunkline.reader set snapshot = txid_current_snapshot()')
    await rotate(database)
    expect(await countsOf(database)).toEqual([0, 0, 0])
    await foreign.query('rollback')
  })

  test('neither an open writer nor a reader of an old child is pushed aside, and none waits', async () => {
    await using database = await prepare()
    const writer = await database.connect()
    await writer.query("begin; insert into thing (name) values ('early')")
    await age(database, '13 hours')
    expect(await rotate(database)).toBe('rotated')
    // A transaction goes on in the child that it began in or in the next one: both are read.
    await writer.query("insert into thing (name) values ('late')")
    await age(database, '25 hours')
    const started = performance.now()
    await rotate(database)
    expect(performance.now() - started).toBeLessThan(1500)
    await writer.query('commit')
    expect(await database.query('select count(*)::integer as n from trunkline.log')).toEqual([{ n: 2 }])
    const reader = await database.connect()
    await reader.query('begin; select from trunkline.log')
    await rotate(database)
    expect(await database.query('select count(*)::integer as n from trunkline.log')).toEqual([{ n: 2 }])
    await reader.query('commit')
    await rotate(database)
    expect(await database.query('select count(*)::integer as n from trunkline.log_0')).toEqual([{ n: 0 }])
  })

  test('writers that never pause, and rotations without end: nothing is lost, nothing fails', async () => {
    await using database = await prepare()
    const state = { running: true }
    let written = 0
    const write = async (): Promise<void> => {
      const client = await database.connect()
      while (state.running) {
        await client.query({ name: 'write', text: 'insert into thing (name) values ($1)', values: ['x'] })
        written += 1
      }
    }
    const writers = Promise.all([write(), write(), write()])
    await database.query("insert into trunkline.reader (name, position, snapshot) values ('holds', '0', '1:1:')")
    const slots = new Set<unknown>([0])
    for (let n = 0; n < 12; n += 1) {
      await age(database, '13 hours')
      await rotate(database)
      slots.add((await database.query('select trunkline.log_slot() as slot'))[0]?.['slot'])
    }
    state.running = false
    await writers
    expect(slots.size).toBe(3)
    const [row] = await database.query<{ n: number }>('select count(*)::integer as n from trunkline.log')
    expect(row?.n).toBe(written)
  })

  test('many callers at once: one does it', async () => {
    await using database = await prepare()
    await age(database, '13 hours')
    const clients = await Promise.all(Array.from({ length: 6 }, () => database.connect()))
    const done = await Promise.all(
      clients.map(
        async (client) => (await client.query<{ done: string }>('select trunkline.rotate() as done')).rows[0]?.done,
      ),
    )
    expect(done.filter((result) => result === 'rotated')).toHaveLength(1)
  })
})
