import pg from 'pg'
import { createPool, sql } from 'slonik'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type Trunkline } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { backendPid, describeEachPostgres, untilBlocked, useDatabase } from '../support/index.ts'

describeEachPostgres('inbox', (server) => {
  const database = useDatabase(server)

  beforeAll(async () => {
    await install(database().url)
    await database().query('create table handled (message text)')
  })

  function open(): Trunkline {
    const trunkline = createTrunkline({ url: database().url })
    onTestFinished(() => trunkline.stop())
    return trunkline
  }

  async function handle(client: pg.Client, message: string): Promise<void> {
    await client.query('insert into handled values ($1)', [message])
  }

  async function timesHandled(message: string): Promise<number> {
    return (await database().query('select from handled where message = $1', [message])).length
  }

  test('handles a message once for each consumer, and again when the transaction rolled back', async () => {
    const { inbox } = open()
    const client = await database().connect()
    const run = async (consumer: string, end: string): Promise<boolean> => {
      await client.query('begin')
      const isNew = await inbox.once(client, consumer, 'm1', () => handle(client, 'm1'))
      await client.query(end)
      return isNew
    }
    expect(await run('mail', 'rollback')).toBe(true)
    expect(await timesHandled('m1')).toBe(0)
    expect(await run('mail', 'commit')).toBe(true)
    expect(await run('mail', 'commit')).toBe(false)
    expect(await timesHandled('m1')).toBe(1)
    expect(await run('stock', 'commit')).toBe(true)
    expect(await timesHandled('m1')).toBe(2)
  })

  test('two at the same time: the second waits, and handles only what the first did not', async () => {
    const { inbox } = open()
    const [first, second] = [await database().connect(), await database().connect()]
    const pid = await backendPid(second)
    for (const end of ['rollback', 'commit']) {
      await first.query('begin')
      await second.query('begin')
      await inbox.once(first, 'both', `m ${end}`, () => handle(first, `m ${end}`))
      const waiting = inbox.once(second, 'both', `m ${end}`, () => handle(second, `m ${end}`))
      await untilBlocked(database(), pid)
      await first.query(end)
      expect(await waiting).toBe(end === 'rollback')
      await second.query('commit')
      expect(await timesHandled(`m ${end}`)).toBe(1)
    }
  })

  test('16 consumers, each message sent to all of them: each is handled once', async () => {
    const { inbox } = open()
    const pool = new pg.Pool({ connectionString: database().url, max: 16 })
    onTestFinished(() => pool.end())
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let n = 0; n < 30; n += 1) {
          const client = await pool.connect()
          await client.query('begin')
          await inbox.once(client, 'many', `many ${n}`, () =>
            client.query('insert into handled values ($1)', [`many ${n}`]),
          )
          await client.query(Math.random() < 0.2 ? 'rollback' : 'commit')
          client.release()
        }
      }),
    )
    const rows = await database().query<{ message: string }>("select message from handled where message like 'many %'")
    expect(new Set(rows.map((row) => row.message)).size).toBe(rows.length)
    expect(rows.length).toBeGreaterThan(25)
  })

  test('a handler that fails leaves the message unhandled, also when the caller commits', async () => {
    const { inbox } = open()
    const client = await database().connect()
    await client.query('begin')
    const failing = (): never => {
      throw new Error('not now')
    }
    await expect(inbox.once(client, 'c', 'fails', failing)).rejects.toThrow('not now')
    await client.query('commit')
    await client.query('begin')
    await expect(inbox.once(client, 'c', 'fails', () => client.query('select 1 / 0'))).rejects.toThrow(
      'division by zero',
    )
    await client.query('rollback')
    await client.query('begin')
    expect(await inbox.once(client, 'c', 'fails', () => handle(client, 'fails'))).toBe(true)
    await client.query('commit')
    expect(await timesHandled('fails')).toBe(1)
  })

  test('without a transaction nothing is claimed', async () => {
    const { inbox, pool } = open()
    const client = await database().connect()
    for (const tx of [pool, client]) {
      await expect(inbox.once(tx, 'c', 'alone', () => undefined)).rejects.toMatchObject({ code: 'no_transaction' })
    }
    await client.query('begin')
    expect(await inbox.once(client, 'c', 'alone', () => undefined)).toBe(true)
    await client.query('rollback')
    await client.query('begin')
    await expect(inbox.once(client, '', 'x', () => undefined)).rejects.toMatchObject({ code: 'invalid_argument' })
    // As UTF-8 it would be the same message as another one.
    await expect(inbox.once(client, 'c', '\ud800', () => undefined)).rejects.toMatchObject({ code: 'invalid_argument' })
    await client.query('rollback')
    await expect(inbox.once(undefined as never, 'c', 'x', () => undefined)).rejects.toMatchObject({
      code: 'invalid_argument',
    })
  })

  test('as the first statement of a routed transaction, whose BEGIN comes with it', async () => {
    const trunkline = open()
    const handleOnce = (end?: Error): Promise<boolean> =>
      trunkline.write(async (tx) => {
        const isNew = await trunkline.inbox.once(tx, 'routed', 'm', () =>
          tx.query("insert into handled values ('routed')"),
        )
        if (end !== undefined) throw end
        return isNew
      })
    await expect(handleOnce(new Error('rolled back'))).rejects.toThrow('rolled back')
    expect([await handleOnce(), await handleOnce()]).toEqual([true, false])
    expect(await timesHandled('routed')).toBe(1)
  })

  test('with a slonik transaction', async () => {
    const { inbox } = open()
    const pool = await createPool(database().url)
    onTestFinished(() => pool.end())
    const handleOnce = (): Promise<boolean> =>
      pool.transaction((tx) =>
        inbox.once(tx, 'slonik', 'm', () => tx.query(sql.unsafe`insert into handled values ('by slonik')`)),
      )
    expect([await handleOnce(), await handleOnce()]).toEqual([true, false])
    expect(await timesHandled('by slonik')).toBe(1)
    await expect(inbox.once(pool, 'slonik', 'm2', () => undefined)).rejects.toMatchObject({ code: 'no_transaction' })
  })

  test('forgets by age in steps, and nothing that is younger', async () => {
    const trunkline = open()
    await database().query(
      `insert into trunkline.inbox (consumer, message_id, handled_at)
       select 'old', 'm' || n, now() - interval '31 days' from generate_series(1, 2500) as n;
       insert into trunkline.inbox (consumer, message_id, handled_at) values ('young', 'm', now() - interval '29 days')`,
    )
    expect(await trunkline.inbox.cleanStep()).toBe(1_000)
    expect(await trunkline.inbox.clean()).toBe(1_500)
    expect(await database().query("select from trunkline.inbox where consumer = 'old'")).toEqual([])
    expect(await database().query("select from trunkline.inbox where consumer = 'young'")).toHaveLength(1)
    await database().query("update trunkline.installation set inbox_retention = '1 day'")
    expect(await trunkline.inbox.clean()).toBe(1)
  })
})
