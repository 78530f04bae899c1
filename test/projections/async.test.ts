import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { type NewEvent, ProjectionTimeoutError, upcaster } from '../../src/index.ts'
import {
  describeEachPostgres,
  eventually,
  lacksPgBouncer,
  startPgBouncer,
  terminateBackends,
  useDatabase,
} from '../support/index.ts'
import { differences, noDifference, open, prepare } from './projecting.ts'
import { type Counted, seenHandlers, seenTables } from './read-model.ts'

describeEachPostgres('an async projection', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  const counted = (by: number): NewEvent => ({ type: 'counted', payload: { by } })

  test('follows what is appended, from the first event on, and says when it has reached a position', async () => {
    const trunkline = open(database(), { pollIntervalMs: 600_000 })
    await trunkline.events.append('before-1', 'any', [counted(1), counted(2), { type: 'other', payload: null }])
    const projection = trunkline.projection<Counted>({
      name: 'seen',
      mode: 'async',
      tables: seenTables('seen'),
      handlers: seenHandlers('seen', String),
    })
    await expect(projection.reached('1', { timeoutMs: 50 })).rejects.toMatchObject({
      name: 'ProjectionTimeoutError',
      code: 'projection_timeout',
      retryable: true,
      reached: undefined,
    })
    await projection.start()
    await projection.start()
    for (let n = 0; n < 5; n += 1) {
      // Nothing but a notification wakes it.
      await eventually(() => trunkline.events.signal.isAsleep, { what: 'it sleeps' })
      const { position } = await trunkline.events.append(`live-${n % 2}`, 'any', counted(n))
      await projection.reached(position)
      expect(await database().query('select note from seen where position = $1', [position])).toEqual([
        { note: 'false' },
      ])
    }
    expect(await differences(database(), 'seen')).toEqual(noDifference)
    expect(await database().query(`select note from seen where stream = 'before-1'`)).toEqual([
      { note: 'true' },
      { note: 'true' },
    ])
    expect(await projection.status()).toMatchObject({
      name: 'seen',
      state: 'running',
      version: 1,
      lagEvents: 0,
      lagSeconds: null,
      error: null,
      parked: 0,
      building: null,
      processes: [expect.stringMatching(/:\d+$/)],
    })
    const waiting = projection.reached(10n ** 15n, { timeoutMs: 30 })
    await expect(waiting).rejects.toBeInstanceOf(ProjectionTimeoutError)
    await expect(projection.reached('x')).rejects.toMatchObject({ code: 'invalid_argument' })
    await projection.stop()
    await projection.stop()
    expect(await projection.status()).toMatchObject({ state: 'idle' })
    await projection.start()
    const { position } = await trunkline.events.append('live-1', 'any', counted(1))
    await projection.reached(position)
    expect(await differences(database(), 'seen')).toEqual(noDifference)
  })

  test('sleeps until somebody appends: another process, SQL, a transaction that was begun before and commits late', async () => {
    // Far beyond what the test takes: whatever is handled was woken for.
    const [sleeper, other] = [open(database(), { pollIntervalMs: 600_000 }), open(database())]
    const projection = sleeper.projection<Counted>({
      name: 'woken',
      mode: 'async',
      categories: ['woken'],
      partitions: 3,
      tables: seenTables('woken'),
      handlers: seenHandlers('woken'),
    })
    await projection.start()
    const asleep = (): Promise<boolean> => eventually(() => sleeper.events.signal.isAsleep, { what: 'it sleeps' })
    const handled = async (position: string): Promise<void> => {
      await projection.reached(position, { timeoutMs: 20_000 })
      expect(await database().query('select from woken where position = $1', [position])).toHaveLength(1)
    }
    const last = async (): Promise<string> =>
      (await other.events.query({ direction: 'backward', limit: 1 }))[0]!.position
    for (let n = 0; n < 6; n += 1) {
      await asleep()
      await handled((await other.events.append(`woken-${n}`, 'any', counted(n))).position)
    }
    await asleep()
    await database().query(`select trunkline.append('woken-sql', 'any', '{"type": "counted", "payload": {"by": 1}}')`)
    await handled(await last())

    const client = await database().connect()
    await client.query('begin')
    const late = await other.events.append('woken-late', 'any', counted(1), { tx: client })
    // It comes after one that is open, and waits for it.
    const { position } = await other.events.append('woken-after', 'any', counted(2))
    await expect(projection.reached(position, { timeoutMs: 300 })).rejects.toBeInstanceOf(ProjectionTimeoutError)
    await client.query('commit')
    await handled(late.position)
    await handled(position)
    await asleep()
    await client.query('begin')
    await other.events.append('woken-rolled-back', 'any', counted(3), { tx: client })
    await client.query('rollback')
    await handled((await other.events.append('woken-after', 'any', counted(4))).position)
  })

  test('its checkpoint is what was scanned, also where a filter left nothing; old events come in their new form', async () => {
    const trunkline = open(database())
    const split = upcaster({
      from: { type: 'added', schemaVersion: 1 },
      to: [{ type: 'counted', schemaVersion: 2 }],
      upcast: (payload: number[]) => payload.map((by) => ({ type: 'counted' as const, payload: { by } })),
    })
    const upcasters = [split]
    trunkline.events.declare<Counted>({ type: 'shape', upcasters: [...upcasters] })
    const seen: unknown[] = []
    const projection = trunkline.projection<Counted>({
      name: 'filtered',
      mode: 'async',
      categories: ['shape'],
      handlers: {
        counted: (event) => {
          seen.push([event.version, event.payload.by])
        },
      },
    })
    await projection.start()
    await trunkline.events.append('shape-1', 'any', { type: 'added', schemaVersion: 1, payload: [4, 5] })
    await trunkline.events.append('shape-1', 'any', { type: 'counted', schemaVersion: 2, payload: { by: 6 } })
    const { position } = await trunkline.events.append('unwanted-1', 'any', [counted(1), counted(2)])
    await projection.reached(position)
    expect(seen).toEqual([
      [1, 4],
      [1, 5],
      [2, 6],
    ])
    expect((await projection.status())?.position).toBe(position)
  })

  test('an event is not handled before it is settled, and what a rolled back transaction drew is passed over', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>({
      name: 'settled',
      mode: 'async',
      tables: seenTables('settled'),
      handlers: seenHandlers('settled'),
    })
    await projection.start()
    const writer = await database().connect()
    for (const end of ['commit', 'rollback']) {
      await writer.query('begin')
      await trunkline.events.append('held-1', 'any', counted(1), { tx: writer })
      const { position } = await trunkline.events.append('later-1', 'any', counted(2))
      await expect(projection.reached(position, { timeoutMs: 250 })).rejects.toMatchObject({
        code: 'projection_timeout',
      })
      await writer.query(end)
      await projection.reached(position)
      expect(await differences(database(), 'settled')).toEqual(noDifference)
    }
  })

  test('works behind PgBouncer in transaction mode', { skip: lacksPgBouncer() }, async () => {
    const bouncer = await startPgBouncer(database())
    onTestFinished(() => bouncer.stop())
    const trunkline = open(database(), { url: bouncer.url, listenUrl: false })
    const projection = trunkline.projection<Counted>({
      name: 'pooled',
      mode: 'async',
      partitions: 3,
      tables: seenTables('pooled'),
      handlers: seenHandlers('pooled'),
    })
    await projection.start()
    let last = '0'
    for (let n = 0; n < 30; n += 1)
      last = (await trunkline.events.append(`pooled-${n % 7}`, 'any', counted(n))).position
    await projection.reached(last)
    expect(await differences(database(), 'pooled')).toEqual(noDifference)
    await projection.rebuild()
    expect(await differences(database(), 'pooled')).toEqual(noDifference)
  })

  test('broken connections cost work and no row', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>({
      name: 'cut',
      mode: 'async',
      batchSize: 3,
      tables: seenTables('cut'),
      handlers: seenHandlers('cut'),
    })
    await projection.start()
    let last = '0'
    for (let n = 0; n < 40; n += 1) {
      last = (await trunkline.events.append(`cut-${n % 3}`, 'any', counted(n))).position
      if (n % 10 === 5) await terminateBackends(database(), { where: `application_name like 'trunkline projection%'` })
    }
    await projection.reached(last, { timeoutMs: 20_000 })
    expect(await differences(database(), 'cut')).toEqual(noDifference)
    await eventually(async () => (await projection.status())?.error === null, { what: 'nothing fails any more' })
  })

  test('partitions are shared by processes, and taken over from one that is not heard of', async () => {
    const options = {
      name: 'shared',
      mode: 'async' as const,
      partitions: 4,
      leaseMs: 500,
      tables: seenTables('shared'),
      handlers: seenHandlers('shared'),
    }
    const [one, other] = [open(database()), open(database())]
    const first = one.projection<Counted>(options)
    const second = other.projection<Counted>(options)
    await first.start()
    await second.start()
    const owners = async (): Promise<number[]> =>
      (
        await database().query<{ n: number }>(
          `select count(*)::int as n from trunkline.projection_partition as p
           where p.projection = 'shared' and p.owner is not null group by p.owner`,
        )
      ).map(({ n }) => n)
    await eventually(async () => (await owners()).join() === '2,2', { what: 'both have two' })
    // One that is dead: nobody renews its lease.
    await database().query(
      `with dead as (
         insert into trunkline.projection_member (projection, build, owner, process, expires_at)
         select 'shared', b.build, '00000000-0000-0000-0000-000000000001', 'dead:1', clock_timestamp() + interval '500 ms'
         from trunkline.projection_build as b where b.projection = 'shared' returning owner, build
       )
       update trunkline.projection_partition as p set owner = d.owner, epoch = p.epoch + 1
       from dead as d where p.projection = 'shared' and p.build = d.build`,
    )
    const { position } = await one.events.append('shared-1', 'any', [counted(1), counted(2)])
    await first.reached(position)
    expect(await differences(database(), 'shared')).toEqual(noDifference)
    await second.stop()
    await eventually(async () => (await owners()).join() === '4', { what: 'the other has all' })
  })

  test('a checkpoint of another history is refused, and a rebuild goes on', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>({
      name: 'restored',
      mode: 'async',
      tables: seenTables('restored'),
      handlers: seenHandlers('restored'),
    })
    await projection.start()
    const { position } = await trunkline.events.append('restored-1', 'any', counted(1))
    await projection.reached(position)
    await projection.stop()
    for (const change of [`anchor_id = '00000000-0000-0000-0000-000000000001'`, 'position = position + 1000000']) {
      await database().query(`update trunkline.projection_partition set ${change} where projection = 'restored'`)
      await projection.start()
      await eventually(async () => (await projection.status())?.error?.code === 'other_history', {
        what: 'it is refused',
      })
      expect((await projection.status())?.error?.message).toContain('trunkline projections rebuild restored')
      await projection.rebuild()
      await trunkline.events.append('restored-1', 'any', counted(2))
      const last = (await trunkline.events.append('restored-1', 'any', counted(2))).position
      await projection.reached(last)
      expect(await differences(database(), 'restored')).toEqual(noDifference)
      await projection.stop()
    }
  })

  test('wrong options, tables that are not empty and missing rights are told', async () => {
    const trunkline = open(database())
    const handlers = { counted: () => undefined }
    for (const [options, found] of [
      [{ name: '', mode: 'async', handlers }, /name/],
      [{ name: 'a', mode: 'later', handlers }, /mode/],
      [{ name: 'a', mode: 'async', handlers: {} }, /no handler/],
      [{ name: 'a', mode: 'async', handlers: { counted: 1 } }, /counted/],
      [{ name: 'a', mode: 'async', handlers, partitions: 65 }, /partitions 65/],
      [{ name: 'a', mode: 'inline', handlers, onFailure: 'park' }, /onFailure/],
      [{ name: 'a', mode: 'async', handlers, tables: ['a.b.c'] }, /no name of a table/],
      [{ name: 'a', mode: 'async', handlers, categories: ['a-b'] }, /categories/],
      [{ name: 'a', mode: 'async', handlers, handler: 1 }, /"handler"/],
    ] as const) {
      expect(() => trunkline.projection(options as never)).toThrow(found)
    }
    await database().query('create table full_table as select 1 as n')
    const full = trunkline.projection({ name: 'full', mode: 'async', handlers, tables: ['full_table'] })
    await expect(full.start()).rejects.toMatchObject({ code: 'table_not_empty' })
    const none = trunkline.projection({ name: 'none', mode: 'async', handlers, tables: ['no_such_table'] })
    await expect(none.start()).rejects.toMatchObject({ code: 'unknown_table' })
    const stranger = open(database(), { url: database().userUrl })
    const denied = stranger.projection({ name: 'denied', mode: 'async', handlers, tables: seenTables('denied') })
    await expect(denied.start()).rejects.toMatchObject({ code: 'no_privilege' })
    await expect(denied.start()).rejects.toThrow('grant_projections')
    const elsewhere = open(database(), { schema: 'nowhere' })
    await expect(elsewhere.projection({ name: 'a', mode: 'async', handlers }).start()).rejects.toMatchObject({
      code: 'schema_missing',
    })
  })

  test('a role with grant_projections and rights on the tables runs it, and cannot rebuild it', async () => {
    const owner = open(database())
    const options = {
      name: 'granted',
      mode: 'async' as const,
      tables: seenTables('granted'),
      handlers: seenHandlers('granted'),
    }
    const made = owner.projection<Counted>(options)
    await made.start()
    await made.stop()
    await database().query(`select trunkline.grant_projections('app_user')`)
    await database().query('grant select, insert, update, delete on granted, granted_sum to app_user')
    await database().query('grant usage on sequence granted_place_seq to app_user')
    const user = open(database(), { url: database().userUrl })
    const projection = user.projection<Counted>(options)
    await projection.start()
    const { position } = await owner.events.append('granted-1', 'any', counted(1))
    await projection.reached(position)
    expect(await differences(database(), 'granted')).toEqual(noDifference)
    await expect(projection.rebuild()).rejects.toMatchObject({ code: 'no_privilege' })
    await projection.stop()
    await made.rebuild()
    // Rights are kept, and there is nothing left of the attempt.
    expect(await database().query(`select has_table_privilege('app_user', 'granted', 'insert') as may`)).toEqual([
      { may: true },
    ])
    expect(
      await database().query(`select relname from pg_class where relname like '%\\_\\_%' and relkind = 'r'`),
    ).toEqual([])
  })
})
