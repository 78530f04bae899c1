import { beforeAll, expect, test } from 'vitest'
import { type HandlerContext, type NewEvent, type ProjectionOptions, type RecordedEvent } from '../../src/index.ts'
import { describeEachPostgres, eventually, untilBackends, useDatabase } from '../support/index.ts'
import { open, prepare } from './projecting.ts'
import { type Counted } from './read-model.ts'

type CountedEvent = RecordedEvent<'counted', { by: number }>

describeEachPostgres('an event that a projection cannot handle', (server) => {
  const database = useDatabase(server)

  beforeAll(async () => {
    await prepare(database())
    await database().query(
      'create table handled (place bigserial, name text, stream text, n int, primary key (name, stream, n))',
    )
  })

  const counted = (by: number): NewEvent => ({ type: 'counted', payload: { by } })

  /** Numbers that were handled, in order: of one stream, or of all. */
  async function handled(name: string, stream: string | null = null): Promise<number[]> {
    const rows = await database().query<{ n: number }>(
      'select n from handled where name = $1 and ($2::text is null or stream = $2) order by place',
      [name, stream],
    )
    return rows.map(({ n }) => n)
  }

  /** Writes the number of each event, after a fault has had its turn. */
  function options(
    name: string,
    fault: (n: number, context: HandlerContext, event: CountedEvent) => unknown,
    more: Partial<ProjectionOptions<Counted>> = {},
  ): ProjectionOptions<Counted> {
    return {
      name,
      mode: 'async',
      categories: [name],
      ...more,
      handlers: {
        counted: async (event, context) => {
          await context.query('insert into handled (name, stream, n) values ($1, $2, $3)', [
            name,
            event.stream,
            event.payload.by,
          ])
          await fault(event.payload.by, context, event)
        },
      },
    }
  }

  test('stops its partition by default: what is before it is there, and it is tried until it goes through', async () => {
    const trunkline = open(database())
    let isMended = false
    const projection = trunkline.projection<Counted>(
      options('stopped', (n) => {
        if (n === 5 && !isMended) throw new Error('five is right out')
      }),
    )
    await trunkline.events.append(
      'stopped-1',
      'any',
      [1, 2, 3, 4, 5, 6, 7].map((n) => counted(n)),
    )
    const { position } = await trunkline.events.append('stopped-2', 'any', counted(8))
    await projection.start()
    await eventually(async () => ((await projection.status())?.error?.attempts ?? 0) >= 3, {
      what: 'it has been tried',
    })
    expect(await handled('stopped')).toEqual([1, 2, 3, 4])
    const status = await projection.status()
    expect(status).toMatchObject({
      state: 'failing',
      lagEvents: 4,
      parked: 0,
      error: { code: 'projection_failed', stream: 'stopped-1' },
    })
    expect(status?.error?.message).toBe(
      'Projection "stopped": event "counted" of stream stopped-1, version 5, failed: five is right out',
    )
    isMended = true
    await projection.reached(position, { timeoutMs: 20_000 })
    expect(await handled('stopped')).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(await projection.status()).toMatchObject({ state: 'running', error: null, lagEvents: 0 })
  })

  test('is parked with what follows it in its stream, others go on; retried in order, or discarded', async () => {
    const trunkline = open(database())
    const bad = new Set([2, 12])
    const projection = trunkline.projection<Counted>(
      options(
        'parked',
        (n) => {
          if (bad.has(n)) throw new Error(`no ${n}`)
        },
        { onFailure: 'park', attemptsMax: 2, partitions: 2 },
      ),
    )
    await projection.start()
    await trunkline.events.append(
      'parked-a',
      'any',
      [1, 2, 3].map((n) => counted(n)),
    )
    await trunkline.events.append(
      'parked-b',
      'any',
      [11, 12].map((n) => counted(n)),
    )
    let { position } = await trunkline.events.append('parked-c', 'any', counted(21))
    await projection.reached(position)
    await projection.stop()
    await projection.start()
    ;({ position } = await trunkline.events.append('parked-a', 'any', counted(4)))
    await trunkline.events.append('parked-b', 'any', counted(13))
    ;({ position } = await trunkline.events.append('parked-c', 'any', counted(22)))
    await projection.reached(position)
    expect(await handled('parked', 'parked-a')).toEqual([1])
    expect(await handled('parked', 'parked-b')).toEqual([11])
    expect(await handled('parked', 'parked-c')).toEqual([21, 22])
    const parked = await projection.parked.list()
    expect(parked.map(({ stream, version, attempts }) => [stream, version, attempts])).toEqual([
      ['parked-a', 2, 2],
      ['parked-a', 3, 0],
      ['parked-b', 2, 2],
      ['parked-a', 4, 0],
      ['parked-b', 3, 0],
    ])
    expect(parked[0]).toMatchObject({
      projection: 'parked',
      type: 'counted',
      errorCode: 'projection_failed',
      request: null,
    })
    expect(parked[0]?.error).toContain('no 2')
    expect(parked[0]?.firstAttemptAt).toBeInstanceOf(Date)
    expect(await projection.status()).toMatchObject({ state: 'running', parked: 5, error: null })
    await expect(projection.parked.retry({ ids: [parked[0]!.id, '999999'] })).rejects.toMatchObject({
      code: 'unknown_parked_event',
    })

    // It fails once more: it is counted, and all stays as it was.
    expect(await projection.parked.retry({ ids: [parked[0]!.id] })).toBe(1)
    await eventually(async () => (await projection.parked.list())[0]?.attempts === 3, {
      what: 'it has been tried again',
    })
    expect(await handled('parked', 'parked-a')).toEqual([1])
    bad.delete(2)
    await projection.parked.retry({ ids: [parked[0]!.id] })
    await eventually(async () => (await projection.parked.list()).length === 2, { what: 'the stream has gone through' })
    expect(await handled('parked', 'parked-a')).toEqual([1, 2, 3, 4])
    // Its stream goes on by itself.
    ;({ position } = await trunkline.events.append('parked-a', 'any', counted(5)))
    await projection.reached(position)
    expect(await handled('parked', 'parked-a')).toEqual([1, 2, 3, 4, 5])

    await projection.parked.discard({ ids: [parked[2]!.id] })
    await eventually(async () => (await projection.parked.list()).length === 0, {
      what: 'the others have gone through',
    })
    expect(await handled('parked', 'parked-b')).toEqual([11, 13])
  })

  test('an event that is to be parked behind another is so, also where the next one of its page fails', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>(
      options(
        'behind',
        (n) => {
          if (n < 10) throw new Error(`no ${n}`)
        },
        { onFailure: 'park', attemptsMax: 1 },
      ),
    )
    await trunkline.events.append('behind-a', 'any', [counted(1), counted(11)])
    await trunkline.events.append('behind-b', 'any', counted(2))
    const { position } = await trunkline.events.append('behind-a', 'any', counted(12))
    await projection.start()
    await projection.reached(position)
    expect((await projection.parked.list()).map(({ stream, version }) => [stream, version])).toEqual([
      ['behind-a', 1],
      ['behind-a', 2],
      ['behind-b', 1],
      ['behind-a', 3],
    ])
  })

  test('parked events are served while another one stops their partition', async () => {
    const trunkline = open(database())
    const bad = new Set([1, 2])
    const projection = trunkline.projection<Counted>(
      options(
        'full',
        (n) => {
          if (bad.has(n)) throw new Error(`no ${n}`)
        },
        { onFailure: 'park', attemptsMax: 1, parkedMax: 1 },
      ),
    )
    await trunkline.events.append('full-a', 'any', [counted(1), counted(11)])
    await trunkline.events.append('full-b', 'any', counted(2))
    const { position } = await trunkline.events.append('full-c', 'any', counted(31))
    await projection.start()
    const isStopped = async (): Promise<boolean> => (await projection.status())?.error?.stream === 'full-b'
    await eventually(isStopped, { what: 'the second one stops it' })
    bad.delete(1)
    await projection.parked.retry()
    await projection.reached(position)
    expect(await handled('full')).toEqual([1, 11, 31])
    expect(await projection.parked.list()).toMatchObject([{ stream: 'full-b', version: 1 }])
  })

  test('a retry that is interrupted stays wanted: by a stop, and by somebody’s lock', async () => {
    const trunkline = open(database())
    const reached = Promise.withResolvers<void>()
    let mode: 'fail' | 'hang' | 'lock' = 'fail'
    const projection = trunkline.projection<Counted>(
      options(
        'wanted',
        async (n, { query, signal }) => {
          if (n === 1 && mode === 'fail') throw new Error('no')
          if (n === 2 && mode === 'hang') {
            reached.resolve()
            await new Promise((_, reject) => {
              signal.addEventListener('abort', () => reject(new Error('stopped')))
            })
          }
          if (mode === 'lock') await query(`set local lock_timeout = '20ms'; lock table held_by_other`)
        },
        { onFailure: 'park', attemptsMax: 1 },
      ),
    )
    await database().query('create table held_by_other ()')
    const { position } = await trunkline.events.append(
      'wanted-a',
      'any',
      [1, 2, 3, 4].map((n) => counted(n)),
    )
    await projection.start()
    await projection.reached(position)
    mode = 'hang'
    await projection.parked.retry({ ids: [(await projection.parked.list())[0]!.id] })
    await reached.promise
    await projection.stop()
    expect(await projection.parked.list()).toMatchObject([
      { version: 2, request: 'retry', attempts: 0 },
      { version: 3 },
      { version: 4 },
    ])
    mode = 'lock'
    const holder = await database().connect()
    await holder.query('begin; lock table held_by_other')
    await projection.start()
    await untilBackends(database(), { where: `query like '%held_by_other' and wait_event_type = 'Lock'` })
    await holder.query('commit')
    await eventually(async () => (await projection.parked.list()).length === 0, { what: 'it has gone through' })
    expect(await handled('wanted')).toEqual([1, 2, 3, 4])
  })

  test('a wish to discard that comes while its event is retried is not lost, nor is what stands behind', async () => {
    const trunkline = open(database())
    const asked = Promise.withResolvers<void>()
    const retried = Promise.withResolvers<void>()
    let isRetry = false
    const projection = trunkline.projection<Counted>(
      options(
        'wish',
        async (n) => {
          if (n !== 1) return
          if (isRetry) {
            retried.resolve()
            await asked.promise
          }
          throw new Error('no')
        },
        { onFailure: 'park', attemptsMax: 1 },
      ),
    )
    const { position } = await trunkline.events.append('wish-a', 'any', [counted(1), counted(2)])
    await projection.start()
    await projection.reached(position)
    isRetry = true
    const ids = [(await projection.parked.list())[0]!.id]
    await projection.parked.retry({ ids })
    await retried.promise
    await projection.parked.discard({ ids })
    asked.resolve()
    await eventually(async () => (await projection.parked.list()).length === 0, { what: 'it is gone' })
    expect(await handled('wish')).toEqual([2])
  })

  test('with too many parked streams the next one stops it', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>(
      options(
        'many',
        () => {
          throw new Error('all of them')
        },
        { onFailure: 'park', attemptsMax: 1, parkedMax: 3 },
      ),
    )
    for (const n of [1, 2, 3, 4, 5]) await trunkline.events.append(`many-${n}`, 'any', counted(n))
    await projection.start()
    await eventually(async () => (await projection.status())?.error?.stream === 'many-4', {
      what: 'the fourth stops it',
    })
    expect(await projection.status()).toMatchObject({ state: 'failing', parked: 3 })
  })

  for (const [how, fault] of [
    [
      'hangs',
      async () => {
        await new Promise(() => undefined)
      },
    ],
    [
      'hangs in a statement',
      async (context: HandlerContext) => {
        await context.query('select pg_sleep(600)')
      },
    ],
    [
      'breaks its connection',
      async (context: HandlerContext) => {
        await context.query('select pg_terminate_backend(pg_backend_pid())')
      },
    ],
    [
      'swallows an error of the server',
      async (context: HandlerContext) => {
        await context.query('select 1 / 0').catch(() => undefined)
      },
    ],
    [
      'ends the transaction',
      async (context: HandlerContext) => {
        await context.query('rollback')
      },
    ],
    [
      'leaves a deferred constraint broken',
      async (context: HandlerContext) => {
        await context.query('insert into deferred_child values (1)')
      },
    ],
  ] as const) {
    test(`one whose handler ${how} is parked, and nothing of it stays`, async () => {
      const name = `odd${how.replaceAll(' ', '')}`
      await database().query(`
        create table if not exists deferred_parent (id int primary key);
        create table if not exists deferred_child (id int references deferred_parent deferrable initially deferred)`)
      const trunkline = open(database())
      let late: unknown
      const projection = trunkline.projection<Counted>(
        options(
          name,
          async (n, context) => {
            if (n === 3) await fault(context)
            if (n === 4) late = context
          },
          { onFailure: 'park', attemptsMax: 2, handlerTimeoutMs: 300 },
        ),
      )
      await trunkline.events.append(
        `${name}-1`,
        'any',
        [1, 2].map((n) => counted(n)),
      )
      await trunkline.events.append(`${name}-bad`, 'any', counted(3))
      const { position } = await trunkline.events.append(`${name}-1`, 'any', counted(4))
      await projection.start()
      await projection.reached(position, { timeoutMs: 25_000 })
      expect(await handled(name)).toEqual([1, 2, 4])
      expect(await projection.parked.list()).toMatchObject([{ stream: `${name}-bad`, attempts: 2 }])
      // After its transaction nobody writes with what it was given.
      await expect((late as HandlerContext).query('select 1')).rejects.toMatchObject({ code: 'transaction_ended' })
      if (how === 'hangs in a statement') {
        await untilBackends(
          database(),
          { where: `query like 'select pg_sleep%' and state = 'active'` },
          (count) => count === 0,
        )
      }
    })
  }

  test('a lock of somebody else’s is waited for, and counts as no attempt', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>(
      options(
        'locked',
        async (_n, { query }) => {
          await query(`set local lock_timeout = '20ms'`)
          await query('lock table deferred_parent')
        },
        { onFailure: 'park', attemptsMax: 1 },
      ),
    )
    await database().query('create table if not exists deferred_parent (id int primary key)')
    const holder = await database().connect()
    await holder.query('begin')
    await holder.query('lock table deferred_parent')
    const { position } = await trunkline.events.append('locked-1', 'any', counted(1))
    await projection.start()
    await eventually(async () => (await projection.status())?.error !== null, { what: 'it is seen' })
    expect(await projection.status()).toMatchObject({ parked: 0, error: { attempts: 0 } })
    await holder.query('commit')
    await projection.reached(position)
    expect(await handled('locked')).toEqual([1])
  })
})
