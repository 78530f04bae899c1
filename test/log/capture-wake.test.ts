import type pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { captureTable } from '../../src/log/capture.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { operationsOf, queryableOf, sqlStateOf, useTrunklineDatabase } from './captured.ts'

const channel = 'trunkline_trunkline'

describeEachPostgres('who is told of a commit', (server) => {
  const database = useTrunklineDatabase(server)

  async function capture(table: string, options: Parameters<typeof captureTable>[3] = {}): Promise<void> {
    await database().query(`create table if not exists ${table} (id serial primary key, secret text)`)
    await captureTable(queryableOf(database()), 'trunkline', table, options)
  }

  interface Listener {
    /** How many notifications of commits up to now came; a notification of one's own marks the place. */
    readonly heard: () => Promise<number>
  }

  async function listen(): Promise<Listener> {
    const client = await database().connect()
    onTestFinished(() => client.end())
    const payloads: string[] = []
    client.on('notification', (message) => payloads.push(message.payload ?? ''))
    await client.query(`listen ${channel}`)
    let marks = 0
    return {
      heard: async () => {
        marks += 1
        const mark = `mark ${marks}`
        await database().query('select pg_notify($1, $2)', [channel, mark])
        await eventually(() => payloads.includes(mark))
        return payloads.filter((payload) => payload === '').length
      },
    }
  }

  async function sleeper(table: string): Promise<pg.Client> {
    const client = await database().connect()
    await client.query(
      `select pg_advisory_lock_shared(i.lock_class::integer, trunkline.wake_key(t.id))
      from trunkline.installation as i, trunkline.topic as t where t.relation = $1::regclass`,
      [table],
    )
    return client
  }

  const kinds = { plain: {}, custom: { exclude: ['secret'] }, keyed: { rows: 'keys' } } as const

  test.each(Object.keys(kinds) as (keyof typeof kinds)[])(
    'elided: only when a reader of that table sleeps (%s)',
    async (kind) => {
      await capture(kind, kinds[kind])
      await capture('other')
      const { heard } = await listen()
      const write = `insert into ${kind} default values; update ${kind} set secret = 'x'; delete from ${kind}`
      await database().query(write)
      await database().query(`truncate ${kind}`)
      expect(await heard()).toBe(0)
      const asleep = await sleeper(kind)
      await database().query('insert into other default values')
      expect(await heard()).toBe(0)
      await database().query(`insert into ${kind} default values`)
      expect(await heard()).toBe(1)
      // One a transaction, whatever it writes; none when it changes nothing or rolls back.
      await database().query(`begin; ${write}; commit`)
      expect(await heard()).toBe(2)
      await database().query(`delete from ${kind} where false`)
      await database().query(`begin; insert into ${kind} default values; rollback`)
      expect(await heard()).toBe(2)
      await database().query(`truncate ${kind}`)
      expect(await heard()).toBe(3)
      await asleep.query('select pg_advisory_unlock_all()')
      await database().query(write)
      expect(await heard()).toBe(3)
    },
  )

  test.each(Object.keys(kinds) as (keyof typeof kinds)[])(
    'elided: another writer that asks at the same moment is no sleeper (%s)',
    async (kind) => {
      await capture(kind, kinds[kind])
      const { heard } = await listen()
      // As it is between its question and the answer, if the processor is taken from it there.
      const asking = await database().connect()
      await asking.query(
        `select pg_advisory_lock(i.lock_class::integer, trunkline.wake_key(t.id))
        from trunkline.installation as i, trunkline.topic as t where t.relation = $1::regclass`,
        [kind],
      )
      await database().query(`insert into ${kind} default values; update ${kind} set secret = 'x'; delete from ${kind}`)
      expect(await heard()).toBe(0)
      await asking.end()
    },
  )

  test('elided: of writers that commit side by side none notifies for the sake of another', async () => {
    await capture('plain')
    const { heard } = await listen()
    const writers = await Promise.all(Array.from({ length: 8 }, () => database().connect()))
    await Promise.all(
      writers.map(async (writer) => {
        for (let n = 0; n < 200; n += 1) await writer.query('insert into plain default values')
        await writer.end()
      }),
    )
    expect(await heard()).toBeLessThan(4)
  })

  test('a writer never keeps the lock on which readers sleep', async () => {
    await capture('quiet')
    const writer = await database().connect()
    await writer.query('begin; insert into quiet default values')
    expect(
      await database().query(
        "select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
      ),
    ).toEqual([])
    await (await sleeper('quiet')).end()
    await writer.query('commit')
  })

  test('always, off, and back to what the installation says', async () => {
    await capture('knob', { wake: 'always' })
    await capture('inherits')
    const { heard } = await listen()
    let expected = await heard()
    await database().query('insert into knob default values')
    expect(await heard()).toBe((expected += 1))

    await capture('knob', { wake: 'off' })
    const asleep = await sleeper('knob')
    expected = await heard()
    await database().query('insert into knob default values')
    expect(await heard()).toBe(expected)
    await asleep.end()

    await database().query("select trunkline.set_wake('always')")
    expected = await heard()
    await database().query('insert into inherits default values')
    expect(await heard()).toBe((expected += 1))
    await database().query("select trunkline.emit('t', null, null, '{}')")
    expect(await heard()).toBe((expected += 1))
    await database().query("select trunkline.set_wake('elided')")
    await database().query('insert into inherits default values')
    await database().query("select trunkline.emit('t', null, null, '{}')")
    expect(await heard()).toBe(expected)
    expect(await sqlStateOf(database().query("select trunkline.set_wake('sometimes')"))).toBe('TL005')
  })

  test("off allows PREPARE TRANSACTION, which 'always' cannot", async () => {
    await capture('two_phase', { wake: 'off' })
    const client = await database().connect()
    await client.query("begin; insert into two_phase default values; prepare transaction 'two phase'")
    expect(await operationsOf(database(), 'two_phase')).toBe('')
    await client.query("commit prepared 'two phase'")
    expect(await operationsOf(database(), 'two_phase')).toBe('i')
    await capture('two_phase', { wake: 'always' })
    await expect(
      client.query("begin; insert into two_phase default values; prepare transaction 'two phase'"),
    ).rejects.toThrow(/NOTIFY/)
  })

  test('capture itself wakes whoever waits for the table', async () => {
    const { heard } = await listen()
    await capture('fresh')
    expect(await heard()).toBe(1)
    await capture('fresh')
    expect(await heard()).toBe(1)
  })
})
