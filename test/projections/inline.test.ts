import { setImmediate } from 'node:timers/promises'
import { createPool, sql } from 'slonik'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { type NewEvent, ProjectionError, VersionConflictError } from '../../src/index.ts'
import {
  backendPid,
  describeEachPostgres,
  eventually,
  terminateBackends,
  untilBlocked,
  useDatabase,
} from '../support/index.ts'
import { open, prepare } from './projecting.ts'
import { type Counted, seenHandlers, seenTables } from './read-model.ts'

describeEachPostgres('an inline projection', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  const counted = (by: number): NewEvent => ({ type: 'counted', payload: { by } })
  const options = (name: string) => ({
    name,
    mode: 'inline' as const,
    categories: [name],
    tables: seenTables(name),
    handlers: seenHandlers(name),
  })
  /** Of the events of its category alone. */
  async function rows(name: string): Promise<{ sum: string; events: number }[]> {
    return database().query(
      `select coalesce(sum(sum), 0)::text as sum, coalesce(sum(events), 0)::int as events from ${name}_sum`,
    )
  }

  test('is written with the append: its own transaction, the caller’s, pg and slonik; a repeat changes nothing', async () => {
    const trunkline = open(database())
    await trunkline.events.append('mine-1', 'any', [counted(1), counted(2)])
    const projection = trunkline.projection<Counted>(options('mine'))
    await projection.start()
    expect(await rows('mine')).toEqual([{ sum: '3', events: 2 }])

    const id = '018f3a4c-0000-7000-8000-00000000000a'
    await trunkline.events.append('mine-1', 2, { ...counted(10), id })
    expect(await rows('mine')).toEqual([{ sum: '13', events: 3 }])
    expect(await trunkline.events.append('mine-1', 2, { ...counted(10), id })).toMatchObject({ isRepeated: true })
    expect(await rows('mine')).toEqual([{ sum: '13', events: 3 }])

    const client = await database().connect()
    await client.query('begin')
    await trunkline.events.append('mine-2', 'no-stream', counted(100), { tx: client })
    await trunkline.events.append('mine-2', 1, counted(100), { tx: client })
    expect(await rows('mine')).toEqual([{ sum: '13', events: 3 }])
    await client.query('rollback')
    expect(await rows('mine')).toEqual([{ sum: '13', events: 3 }])
    await client.query('begin')
    await trunkline.events.append('mine-2', 'no-stream', counted(100), { tx: client })
    await client.query('commit')
    expect(await rows('mine')).toEqual([{ sum: '113', events: 4 }])

    const pool = await createPool(database().url)
    onTestFinished(() => pool.end())
    await pool.transaction(async (tx) => {
      await trunkline.events.append('mine-3', 'no-stream', counted(1000), { tx })
    })
    await expect(
      pool.transaction(async (tx) => {
        await trunkline.events.append('mine-3', 1, counted(1000), { tx })
        await tx.query(sql.unsafe`select 1`)
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await rows('mine')).toEqual([{ sum: '1113', events: 5 }])
    const { position } = await trunkline.events.append('other-1', 'any', counted(1))
    await projection.reached(position)
    expect(await projection.status()).toMatchObject({ mode: 'inline', state: 'running', position: null, lagEvents: 0 })
  })

  test('of two who expect one version one is written, in both', async () => {
    const trunkline = open(database())
    await trunkline.projection<Counted>(options('raced')).start()
    let won = 0
    for (let n = 0; n < 20; n += 1) {
      const race = await Promise.allSettled(
        [1, 2, 3].map(async (by) => trunkline.events.append('raced-1', n, counted(by))),
      )
      won += race.filter(({ status }) => status === 'fulfilled').length
      for (const each of race) if (each.status === 'rejected') expect(each.reason).toBeInstanceOf(VersionConflictError)
    }
    expect(won).toBe(20)
    const [sums] = await database().query(
      `select sum((payload ->> 'by')::int)::text as sum, count(*)::int as events from trunkline.event where aggregate_type = 'raced'`,
    )
    expect(await rows('raced')).toEqual([sums])
  })

  test('a handler that fails fails the append, and the transaction of whoever catches it', async () => {
    const trunkline = open(database())
    let fault: 'javascript' | 'server' | 'swallowed' | 'none' = 'none'
    await trunkline
      .projection<Counted>({
        ...options('faulty'),
        handlers: {
          counted: async (event, context) => {
            await seenHandlers('faulty').counted?.(event, context)
            if (fault === 'javascript') throw new Error('no such customer')
            if (fault === 'server') await context.query('select 1 / 0')
            if (fault === 'swallowed') await context.query('select 1 / 0').catch(() => undefined)
          },
        },
      })
      .start()
    const client = await database().connect()
    for (fault of ['javascript', 'server', 'swallowed'] as const) {
      await expect(trunkline.events.append('faulty-1', 'any', counted(1))).rejects.toBeInstanceOf(ProjectionError)
      await client.query('begin')
      const error = await trunkline.events
        .append('faulty-1', 'any', counted(1), { tx: client })
        .catch((caught: unknown) => caught)
      expect(error).toMatchObject({ code: 'projection_failed', projection: 'faulty', stream: 'faulty-1', version: 1 })
      await client.query('commit')
    }
    fault = 'swallowed'
    const pool = await createPool(database().url)
    onTestFinished(() => pool.end())
    await expect(
      pool.transaction(async (tx) => trunkline.events.append('faulty-1', 'any', counted(1), { tx })),
    ).rejects.toThrow('kept it to itself')
    fault = 'none'
    // Not a transaction: it would be committed before its handlers run.
    for (const tx of [client, trunkline.pool, pool]) {
      await expect(trunkline.events.append('faulty-1', 'any', counted(1), { tx })).rejects.toMatchObject({
        code: 'no_transaction',
      })
    }
    expect(await trunkline.events.read('faulty-1')).toEqual([])
    expect(await rows('faulty')).toEqual([{ sum: '0', events: 0 }])
    fault = 'none'
    await trunkline.events.append('faulty-1', 0, counted(1))
    expect(await rows('faulty')).toEqual([{ sum: '1', events: 1 }])
  })

  test('a statement of a handler that nobody waits for fails the append all the same', async () => {
    const trunkline = open(database())
    await trunkline
      .projection<Counted>({
        ...options('unheard'),
        handlers: {
          counted: async (event, context) => {
            await seenHandlers('unheard').counted?.(event, context)
            void context.query('select 1 / 0').catch(() => undefined)
          },
        },
      })
      .start()
    await expect(trunkline.events.append('unheard-1', 'any', counted(1))).rejects.toBeInstanceOf(ProjectionError)
    const client = await database().connect()
    await client.query('begin')
    await expect(trunkline.events.append('unheard-1', 'any', counted(1), { tx: client })).rejects.toBeInstanceOf(
      ProjectionError,
    )
    await client.query('rollback')
    // A transaction that has failed before.
    await client.query('begin')
    client.query('select 1 / 0').catch(() => undefined)
    await expect(trunkline.events.append('unheard-1', 'any', counted(1), { tx: client })).rejects.toMatchObject({
      code: 'sqlstate_25P02',
    })
    await client.query('rollback')
    expect(await trunkline.events.read('unheard-1')).toEqual([])
  })

  test('an extension that keeps a failed statement to itself is no success either', async () => {
    const trunkline = open(database())
    trunkline.events.use({
      isWanted: (stream) => stream.startsWith('extended-'),
      inTransaction: async (tx) => {
        await tx.query('select 1 / 0').catch(() => undefined)
      },
    })
    await expect(trunkline.events.append('extended-1', 'any', counted(1))).rejects.toMatchObject({
      code: 'transaction_failed',
    })
    expect(await trunkline.events.read('extended-1')).toEqual([])
  })

  test('appends that share a transaction side by side run their handlers once each, one after the other', async () => {
    const trunkline = open(database())
    await trunkline
      .projection<Counted>({
        ...options('shared'),
        tables: { shared_total: (table) => `create table ${table} (total int not null, log text not null)` },
        handlers: {
          counted: async (event, { query, table }) => {
            const total = table('shared_total')
            const [row] = (await query<{ total: number; log: string }>(`select total, log from ${total}`)).rows
            if (row === undefined) await query(`insert into ${total} values ($1, $2)`, [event.payload.by, event.stream])
            else
              await query(`update ${total} set total = $1, log = $2`, [
                row.total + event.payload.by,
                `${row.log} ${event.stream}`,
              ])
            // Part of the append that it runs in.
            if (event.payload.by === 100) await trunkline.events.append('other-2', 'any', counted(1), { tx: client })
          },
        },
      })
      .start()
    const client = await database().connect()
    await client.query('begin')
    const results = await Promise.all(
      [1, 10, 100, 1000].map((by) =>
        trunkline.events.append(`shared-${by % 3}-${by}`, 'any', counted(by), { tx: client }),
      ),
    )
    await trunkline.events.append('shared-last', 'any', counted(10_000), { tx: client })
    await client.query('commit')
    expect(results.map(({ version }) => version)).toEqual([1, 1, 1, 1])
    expect(await database().query('select * from shared_total')).toEqual([
      { total: 11_111, log: 'shared-1-1 shared-1-10 shared-1-100 shared-1-1000 shared-last' },
    ])
  })

  test('a connection that breaks between two statements of an append is an error, and the process lives', async () => {
    const trunkline = open(database())
    await trunkline
      .projection<Counted>({
        ...options('broken'),
        handlers: {
          counted: async (_event, { query }) => {
            const [row] = (await query<{ pid: number }>('select pg_backend_pid() as pid')).rows
            await terminateBackends(database(), { where: 'pid = $1', values: [row?.pid] })
            await setImmediate()
          },
        },
      })
      .start()
    const error: unknown = await trunkline.events
      .append('broken-1', 'any', counted(1))
      .catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'connection_failed', retryable: true, cause: { code: '57P01' } })
    expect(await trunkline.events.read('broken-1')).toEqual([])
  })

  test('a version conflict costs no connection', async () => {
    const trunkline = open(database())
    await trunkline.projection<Counted>(options('kept')).start()
    await trunkline.events.append('kept-1', 0, counted(1))
    const pid = async (): Promise<unknown> => (await trunkline.pool.query('select pg_backend_pid() as pid')).rows
    const before = await pid()
    for (let n = 0; n < 5; n += 1) {
      await expect(trunkline.events.append('kept-1', 0, counted(1))).rejects.toBeInstanceOf(VersionConflictError)
    }
    expect(await pid()).toEqual(before)
  })

  test('personal data comes opened, payloads as they are read', async () => {
    const trunkline = open(database())
    trunkline.events.aggregate({
      type: 'person',
      initialState: null,
      evolve: (state: null, _event: { type: 'named'; payload: { name: string; on: string; gone?: undefined } }) =>
        state,
      events: { named: { personal: { fields: ['name'], subject: (_payload, stream) => stream } } },
    })
    const seen: unknown[] = []
    await trunkline
      .projection({
        name: 'person',
        mode: 'inline',
        categories: ['person'],
        handlers: { named: ({ payload }) => seen.push(payload) },
      })
      .start()
    await trunkline.events.append('person-1', 'any', {
      type: 'named',
      payload: { name: 'Ada', on: new Date(0), gone: undefined },
    })
    expect(seen).toEqual([{ name: 'Ada', on: '1970-01-01T00:00:00.000Z' }])
    expect((await trunkline.events.read('person-1')).map(({ payload }) => payload)).toEqual(seen)
  })

  test('is rebuilt while writers go on: none is missed, none doubled, and one who is late finds the new tables', async () => {
    const trunkline = open(database())
    const other = open(database())
    const projection = trunkline.projection<Counted>(options('moved'))
    await projection.start()
    await other.projection<Counted>(options('moved')).start()
    const ending = new AbortController()
    const write = async (writer: number): Promise<void> => {
      const { events } = writer % 2 === 0 ? trunkline : other
      const client = await database().connect()
      while (!ending.signal.aborted) {
        await client.query('begin')
        await events.append(`moved-${writer}`, 'any', counted(1), { tx: client })
        await client.query(writer === 4 ? 'rollback' : 'commit')
        await events.append('moved-all', 'any', [counted(1), counted(2)])
      }
    }
    const writers = [3, 4, 5].map((writer) => write(writer))
    for (let n = 0; n < 3; n += 1) await projection.rebuild()
    ending.abort()
    await Promise.all(writers)
    const [sums] = await database().query(
      `select sum((payload ->> 'by')::int)::text as sum, count(*)::int as events from trunkline.event where aggregate_type = 'moved'`,
    )
    expect(await rows('moved')).toEqual([sums])

    // One who has entered holds the swap up; it waits, and he is in.
    const client = await database().connect()
    await client.query('begin')
    await trunkline.events.append('moved-late', 'any', counted(1), { tx: client })
    let isDone = false
    const rebuilding = projection.rebuild().finally(() => (isDone = true))
    await eventually(async () => (await projection.status())?.building !== null, { what: 'it is being built' })
    await trunkline.events.append('moved-late', 1, counted(1), { tx: client })
    expect(isDone).toBe(false)
    await client.query('commit')
    await rebuilding
    const [after] = await database().query(
      `select sum((payload ->> 'by')::int)::text as sum, count(*)::int as events from trunkline.event where aggregate_type = 'moved'`,
    )
    expect(await rows('moved')).toEqual([after])
  })

  test('an append waits for a swap under way, and is written to the new tables', async () => {
    const trunkline = open(database())
    await trunkline.projection<Counted>(options('gated')).start()
    const swapper = await database().connect()
    await swapper.query('begin')
    await swapper.query(`select trunkline.projection_gate('gated', true)`)
    const writer = await database().connect()
    const pid = await backendPid(writer)
    await writer.query('begin')
    const appending = trunkline.events.append('gated-1', 'any', counted(1), { tx: writer })
    await untilBlocked(database(), pid)
    expect(await trunkline.events.read('gated-1')).toEqual([])
    await swapper.query('commit')
    await appending
    await writer.query('commit')
    expect(await rows('gated')).toEqual([{ sum: '1', events: 1 }])
  })

  test('another version refuses appends; a transaction with an old snapshot is told to run again', async () => {
    const trunkline = open(database())
    await trunkline.projection<Counted>(options('versioned')).start()
    const old = await database().connect()
    await old.query('begin isolation level repeatable read')
    await old.query('select 1')
    const newer = open(database())
    const second = newer.projection<Counted>({ ...options('versioned'), version: 2 })
    await newer.events.append('versioned-1', 'any', counted(1))
    await second.start()
    expect(await rows('versioned')).toEqual([{ sum: '1', events: 1 }])
    await newer.events.append('versioned-1', 1, counted(2))
    expect(await rows('versioned')).toEqual([{ sum: '3', events: 2 }])
    await expect(trunkline.events.append('versioned-1', 2, counted(1))).rejects.toMatchObject({
      code: 'projection_version',
    })
    await expect(newer.events.append('versioned-2', 'any', counted(1), { tx: old })).rejects.toMatchObject({
      code: 'projection_moved',
      retryable: true,
    })
    await old.query('rollback')
    await expect(open(database()).projection<Counted>(options('versioned')).start()).rejects.toMatchObject({
      code: 'projection_version',
    })
    expect(await newer.events.read('versioned-1')).toHaveLength(2)
  })
})
