import { beforeAll, expect, test } from 'vitest'
import { type NewEvent, ProjectionError, type ProjectionOptions } from '../../src/index.ts'
import { describeEachPostgres, eventually, useDatabase } from '../support/index.ts'
import { differences, noDifference, open, prepare } from './projecting.ts'
import { type Counted, seenHandlers, seenTables } from './read-model.ts'

describeEachPostgres('a rebuild', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  const counted = (by: number): NewEvent => ({ type: 'counted', payload: { by } })
  const options = (name: string, more: Partial<ProjectionOptions<Counted>> = {}): ProjectionOptions<Counted> => ({
    name,
    mode: 'async',
    tables: seenTables(name),
    handlers: seenHandlers(name, String),
    ...more,
  })
  /** The number of the last build that was begun. */
  async function builds(name: string): Promise<string> {
    const [row] = await database().query<{ builds: string }>(
      'select builds::text from trunkline.projection where name = $1',
      [name],
    )
    return row?.builds ?? ''
  }
  async function leftovers(): Promise<unknown[]> {
    return database().query(`select relname from pg_class where relname ~ '__[0-9]' and relname !~ '^pg_'`)
  }

  test('of a live projection under writers: who reads sees all rows, before and after the swap, and then the new shape', async () => {
    const [one, other] = [open(database()), open(database())]
    const projection = one.projection<Counted>(options('live', { partitions: 2, leaseMs: 1_000 }))
    await projection.start()
    await other.projection<Counted>(options('live', { partitions: 2, leaseMs: 1_000 })).start()
    await database().query('create index live_note on live (note)')
    const { position: first } = await one.events.append('live-0', 'any', counted(1))
    await projection.reached(first, { timeoutMs: 20_000 })
    const ending = new AbortController()
    const work = async (writer: number): Promise<void> => {
      while (!ending.signal.aborted) {
        const { position } = await one.events.append(`live-${writer}`, 'any', [counted(1), counted(2)])
        // No faster than it is handled.
        await projection.reached(position, { timeoutMs: 20_000 })
      }
    }
    /** Rows never get fewer, and the two tables are of one moment. */
    const watch = async (): Promise<number> => {
      let [last, looks] = [0, 0]
      while (!ending.signal.aborted) {
        const [row] = await database().query<{ rows: number; events: number }>(
          `select (select count(*)::int from live) as rows, (select coalesce(sum(events), 0)::int from live_sum) as events`,
        )
        expect(row?.rows).toBe(row?.events)
        expect(row?.rows).toBeGreaterThanOrEqual(last)
        last = row?.rows ?? 0
        looks += 1
      }
      return looks
    }
    const busy = [work(1), work(2), watch()]
    await projection.rebuild()
    // Two at once: they make one build together.
    const before = BigInt(await builds('live'))
    await Promise.all([projection.rebuild(), projection.rebuild()])
    expect(BigInt(await builds('live')) - before).toBeLessThanOrEqual(2n)
    ending.abort()
    await Promise.all(busy)
    const { position } = await one.events.append('live-1', 'any', counted(3))
    await projection.reached(position)
    expect(await differences(database(), 'live')).toEqual(noDifference)
    expect(await leftovers()).toEqual([])
    // Names of indexes and sequences are what they were.
    expect(await database().query(`select indexname from pg_indexes where tablename = 'live' order by 1`)).toEqual([
      { indexname: 'live_pkey' },
      { indexname: 'live_version' },
    ])
    expect(await database().query(`select pg_get_serial_sequence('live', 'place') as name`)).toEqual([
      { name: 'public.live_place_seq' },
    ])
    // What was there before the swap is a replay, what came after is not.
    const notes = await database().query<{ note: string }>('select note from live order by position')
    expect(notes[0]).toEqual({ note: 'true' })
    expect(notes.at(-1)).toEqual({ note: 'false' })
  })

  test('a higher version is built beside by its first start, while the old one serves; the old one stands by then', async () => {
    const [old, next] = [open(database()), open(database())]
    const first = old.projection<Counted>(options('shape'))
    await first.start()
    await old.events.append('shape-1', 'any', [counted(1), counted(2)])
    const second = next.projection<Counted>({
      ...options('shape', { version: 2 }),
      tables: {
        shape: (table) => `create table ${table} (position bigint primary key, twice bigint)`,
        shape_extra: (table) => `create table ${table} ()`,
      },
      handlers: {
        counted: ({ position, payload }, { query, table }) =>
          query(`insert into ${table('shape')} values ($1, $2)`, [position, 2 * payload.by]),
      },
    })
    await second.start()
    await eventually(async () => (await second.status())?.version === 2, { what: 'it has been swapped in' })
    const { position } = await next.events.append('shape-1', 'any', counted(3))
    await second.reached(position)
    expect(await database().query(`select twice::int from shape where position = $1`, [position])).toEqual([
      { twice: 6 },
    ])
    expect(
      await database().query(`select to_regclass('shape_sum') as gone, to_regclass('shape_extra')::text as there`),
    ).toEqual([{ gone: null, there: 'shape_extra' }])
    expect(await leftovers()).toEqual([])
    // Of the old release, started again: it waits, and does no harm.
    await first.stop()
    await first.start()
    const last = (await next.events.append('shape-1', 'any', counted(4))).position
    await second.reached(last)
    expect(await first.status()).toMatchObject({ version: 2, state: 'running', error: null })
  })

  test('that fails leaves the live tables, and nothing else', async () => {
    const trunkline = open(database())
    let fault: 'none' | 'throws' | 'writes to live' = 'none'
    const projection = trunkline.projection<Counted>(
      options('sound', {
        attemptsMax: 2,
        categories: ['sound'],
        handlers: {
          counted: async (event, context) => {
            if (fault === 'throws' && event.version === 2) throw new Error('no more')
            const name = fault === 'writes to live' ? 'sound' : context.table('sound')
            await context.query(`insert into ${name} (position, stream, version) values ($1, 'x', $1)`, [
              fault === 'writes to live' ? -1 : event.position,
            ])
          },
        },
      }),
    )
    await projection.start()
    const { position } = await trunkline.events.append('sound-1', 'any', [counted(1), counted(2), counted(3)])
    await projection.reached(position)
    for (const [what, code] of [
      ['throws', 'projection_failed'],
      ['writes to live', 'wrote_to_live'],
    ] as const) {
      fault = what
      const error = await projection.rebuild().catch((caught: unknown) => caught)
      expect(error).toBeInstanceOf(ProjectionError)
      expect(error).toMatchObject({ code, stream: 'sound-1' })
      expect(await database().query('select count(*)::int as n from sound')).toEqual([{ n: 3 }])
      expect(await leftovers()).toEqual([])
      expect(await projection.status()).toMatchObject({ building: null })
    }
    fault = 'none'
    await projection.rebuild()
    expect(await database().query('select count(*)::int as n from sound')).toEqual([{ n: 3 }])
  })

  test('is refused where others hung something on the tables, and where no tables are declared', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>(options('used'))
    await projection.start()
    await database().query('create view on_used as select * from used')
    await database().query('create table refers (stream text references used_sum)')
    await expect(projection.rebuild()).rejects.toMatchObject({ code: 'read_model_in_use' })
    await expect(projection.rebuild()).rejects.toThrow(/foreign key refers_stream_fkey.*view public\.on_used/)
    await database().query('drop view on_used; drop table refers')
    await trunkline.capture('used')
    await expect(projection.rebuild()).rejects.toThrow(/trigger .* on "public"."used"/)
    await trunkline.release('used')
    await projection.rebuild()
    expect(await leftovers()).toEqual([])
    const bare = trunkline.projection<Counted>({ name: 'bare', mode: 'async', handlers: { counted: () => undefined } })
    await bare.start()
    await expect(bare.rebuild()).rejects.toMatchObject({ code: 'tables_undeclared' })
  })

  test('of tables that exist: they are made like the present ones', async () => {
    const trunkline = open(database())
    await database().query(`
      create schema "Odd Schema";
      create table "Odd Schema"."Odd Table" (stream text primary key, n int not null default 0 check (n >= 0), at timestamptz default now());
      create index "Odd Table by n" on "Odd Schema"."Odd Table" (n);
      grant usage on schema "Odd Schema" to app_user;
      grant select, update (n) on "Odd Schema"."Odd Table" to app_user with grant option`)
    const odd = '"Odd Schema"."Odd Table"'
    const projection = trunkline.projection<Counted>({
      name: 'odd "name"',
      mode: 'async',
      tables: [odd],
      handlers: {
        counted: ({ stream, payload }, { query, table }) =>
          query(
            `insert into ${table(odd)} as t (stream, n) values ($1, $2) on conflict (stream) do update set n = t.n + excluded.n`,
            [stream, payload.by],
          ),
      },
    })
    await projection.start()
    const { position } = await trunkline.events.append('odd-1', 'any', [counted(1), counted(2)])
    await projection.reached(position)
    await projection.rebuild()
    await projection.rebuild()
    expect(await database().query(`select n from ${odd} where stream = 'odd-1'`)).toEqual([{ n: 3 }])
    expect(
      await database().query(
        `select has_table_privilege('app_user', $1, 'select with grant option') as reads, has_column_privilege('app_user', $1, 'n', 'update') as writes,
           has_table_privilege('app_user', $1, 'insert') as inserts,
           (select count(*)::int from pg_index where indrelid = $1::regclass) as indexes`,
        [odd],
      ),
    ).toEqual([{ reads: true, writes: true, inserts: false, indexes: 2 }])
  })

  test('of tables that exist keeps what counts in them, and names of indexes and constraints, also the second time', async () => {
    const trunkline = open(database())
    await database().query(`
      create table counting (
        id serial constraint counting_key primary key, own int generated always as identity, version int constraint is_version check (version > 0),
        constraint once unique (version), constraint apart exclude using btree (own with =)
      );
      create index by_version on counting (version) where version > 1;
      alter sequence counting_own_seq rename to own_numbers;
      select nextval('counting_id_seq') from generate_series(1, 100)`)
    const projection = trunkline.projection<Counted>({
      name: 'counting',
      mode: 'async',
      categories: ['counting'],
      tables: ['counting'],
      handlers: {
        counted: ({ version }, { query, table }) =>
          query(`insert into ${table('counting')} (version) values ($1)`, [version]),
      },
    })
    const names = async (): Promise<unknown> =>
      database().query(
        `select array(select indexname::text from pg_indexes where tablename = 'counting' order by 1) as indexes,
           array(select conname::text from pg_constraint where conrelid = 'counting'::regclass order by 1) as constraints,
           pg_get_serial_sequence('counting', 'id') as id, pg_get_serial_sequence('counting', 'own') as own`,
      )
    const before = await names()
    await projection.start()
    let { position } = await trunkline.events.append('counting-1', 'any', [counted(1), counted(2)])
    await projection.reached(position)
    for (let version = 3; version < 5; version += 1) {
      await projection.rebuild()
      expect(await names()).toEqual(before)
      ;({ position } = await trunkline.events.append('counting-1', 'any', counted(1)))
      await projection.reached(position)
      const ids = await database().query<{ id: number; own: number; version: number }>(
        'select id, own, version from counting order by version',
      )
      expect(ids.map((row) => row.version)).toEqual(Array.from({ length: version }, (_, n) => n + 1))
      expect(ids.map(({ own }) => own)).toEqual(Array.from({ length: version }, (_, n) => n + 1))
      expect(ids[0]?.id).toBeGreaterThan(100)
      expect(new Set(ids.map(({ id }) => id)).size).toBe(version)
    }
    expect(await leftovers()).toEqual([])
  })

  test('of tables that its SQL makes keeps names that were made of the table’s, and goes on counting', async () => {
    const trunkline = open(database())
    const projection = trunkline.projection<Counted>({
      name: 'made',
      mode: 'async',
      categories: ['made'],
      tables: {
        made: (table) =>
          `create table ${table} (id int generated always as identity primary key, version int not null check (version > 0))`,
        made_more: (table) => `create table ${table} (id serial, made int)`,
      },
      handlers: {
        counted: ({ version }, { query, table }) =>
          query(`insert into ${table('made')} (version) values ($1)`, [version]),
      },
    })
    await projection.start()
    const names = async (): Promise<unknown> =>
      database().query(
        `select conname from pg_constraint where conrelid in ('made'::regclass, 'made_more'::regclass) order by conname::text`,
      )
    const before = await names()
    const { position } = await trunkline.events.append('made-1', 'any', [counted(1), counted(2)])
    await projection.reached(position)
    await database().query(`select nextval('made_id_seq') from generate_series(1, 10)`)
    await projection.rebuild()
    await projection.rebuild()
    expect(await names()).toEqual(before)
    expect(await database().query(`insert into made (version) values (3) returning id`)).toEqual([{ id: 13 }])
    expect(await database().query(`select pg_get_serial_sequence('made_more', 'id') as name`)).toEqual([
      { name: 'public.made_more_id_seq' },
    ])
    expect(await leftovers()).toEqual([])
  })

  test('is refused where it would lose a foreign key, a rule or a publication; what else hangs on them is named, too', async () => {
    const trunkline = open(database())
    await database().query(`
      create table keyed_other (id int primary key);
      create table keyed (id int primary key, other int references keyed_other, self int references keyed)`)
    const projection = trunkline.projection<Counted>({
      name: 'keyed',
      mode: 'async',
      tables: ['keyed'],
      categories: ['keyed'],
      handlers: { counted: () => undefined },
    })
    await projection.start()
    await expect(projection.rebuild()).rejects.toThrow(
      /foreign key keyed_other_fkey of keyed to keyed_other, foreign key keyed_self_fkey of keyed to keyed\b/,
    )
    await database().query('alter table keyed drop constraint keyed_other_fkey, drop constraint keyed_self_fkey')
    await database().query('create rule quiet as on delete to keyed do instead nothing')
    await expect(projection.rebuild()).rejects.toThrow(/rule quiet on "public"."keyed"/)
    await database().query('drop rule quiet on keyed')
    await database().adminQuery('create publication told for table keyed')
    await expect(projection.rebuild()).rejects.toMatchObject({
      code: 'read_model_in_use',
      details: { hung: ['publication told of "public"."keyed"'] },
    })
    await database().adminQuery('drop publication told')
    await database().query('create table typed (row keyed)')
    const error: unknown = await projection.rebuild().catch((caught: unknown) => caught)
    expect(error).toMatchObject({ code: 'read_model_in_use' })
    expect(String(error)).toContain('column row of table public.typed depends on type public.keyed')
    await database().query('drop table typed')
    await projection.rebuild()
    expect(await leftovers()).toEqual([])
  })

  for (const onFailure of ['park', 'stop'] as const) {
    test(`with an event near its end that fails ${onFailure === 'park' ? 'parks it' : 'ends with its error'}`, async () => {
      const trunkline = open(database())
      const name = `late_${onFailure}`
      const late = (version: number): ProjectionOptions<Counted> =>
        options(name, {
          version,
          categories: [name],
          onFailure,
          attemptsMax: 6,
          handlers: {
            counted: async (event, context) => {
              if (version === 2 && event.payload.by === 13) throw new Error('bad luck')
              await seenHandlers(name).counted?.(event, context)
            },
          },
        })
      const first = trunkline.projection<Counted>(late(1))
      await first.start()
      const numbers = Array.from({ length: 20 }, (_, n) => n)
      for (const n of numbers) await trunkline.events.append(`${name}-${n % 2}`, 'any', counted(n))
      const { position } = await trunkline.events.append(`${name}-2`, 'any', counted(99))
      await first.reached(position)
      const second = trunkline.projection<Counted>(late(2))
      const rebuilt: unknown = await second.rebuild().catch((caught: unknown) => caught)
      if (onFailure === 'stop') {
        expect(rebuilt).toBeInstanceOf(ProjectionError)
        expect(await second.status()).toMatchObject({ version: 1, building: null })
        return
      }
      expect(rebuilt).toBeUndefined()
      expect(await second.status()).toMatchObject({ version: 2, parked: 4, position })
      expect((await second.parked.list()).map(({ attempts }) => attempts)).toEqual([6, 0, 0, 0])
    })
  }

  test('that was stopped is thrown away by the next one, or carried on', async () => {
    const trunkline = open(database())
    let inBuild: number[] = []
    let isSlow = true
    const projection = trunkline.projection<Counted>(
      options('halted', {
        batchSize: 1,
        categories: ['halted'],
        handlers: {
          counted: async (event, context) => {
            await seenHandlers('halted').counted?.(event, context)
            if (!context.table('halted').includes('__')) return
            inBuild.push(event.version)
            if (isSlow && event.version === 4)
              await new Promise((_resolve, reject) => context.signal.addEventListener('abort', reject))
          },
        },
      }),
    )
    await projection.start()
    const { position } = await trunkline.events.append(
      'halted-1',
      'any',
      [1, 2, 3, 4, 5].map((n) => counted(n)),
    )
    await projection.reached(position)
    const halt = async (): Promise<void> => {
      inBuild = []
      isSlow = true
      const ending = new AbortController()
      const rebuilding = projection.rebuild({ signal: ending.signal })
      const stopped = expect(rebuilding).rejects.toMatchObject({ code: 'rebuild_stopped' })
      await eventually(() => inBuild.includes(4), { what: 'it is half-way' })
      ending.abort()
      await stopped
      isSlow = false
      inBuild = []
      expect(await projection.status()).toMatchObject({ building: { processes: [] } })
    }
    await halt()
    await projection.rebuild()
    expect(await builds('halted')).toBe('3')
    await halt()
    await projection.rebuild({ resume: true })
    expect(await builds('halted')).toBe('4')
    expect(await leftovers()).toEqual([])
    await halt()
    // Of another version it is not carried on.
    const next = trunkline.projection<Counted>(options('halted', { version: 2, categories: ['halted'] }))
    await expect(next.rebuild({ resume: true })).rejects.toMatchObject({ code: 'rebuild_in_progress' })
    await next.rebuild()
    expect(await leftovers()).toEqual([])
  })

  test('ends when its projection is stopped, or all of trunkline', async () => {
    for (const stop of ['projection', 'trunkline'] as const) {
      const trunkline = open(database())
      const reached = Promise.withResolvers<void>()
      const projection = trunkline.projection<Counted>(
        options('ended', {
          categories: ['ended'],
          handlers: {
            counted: async (event, context) => {
              if (!context.table('ended').includes('__')) return
              reached.resolve()
              await new Promise((_resolve, reject) => context.signal.addEventListener('abort', reject))
            },
          },
        }),
      )
      if (stop === 'projection') await projection.start()
      const { position } = await trunkline.events.append('ended-1', 'any', counted(1))
      if (stop === 'projection') await projection.reached(position)
      const rebuilding = expect(projection.rebuild()).rejects.toMatchObject({ code: 'rebuild_stopped' })
      await reached.promise
      await (stop === 'projection' ? projection.stop() : trunkline.stop())
      await rebuilding
    }
  })
})
