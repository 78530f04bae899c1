import { randomBytes, randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import {
  type Aggregate,
  forgotten,
  isForgotten,
  type Personal,
  type PersonalDeclaration,
  type Trunkline,
  type TrunklineOptions,
} from '../../src/index.ts'
import { backendPid, describeEachPostgres, terminateBackends, untilBlocked } from '../support/index.ts'
import { useEvents } from './order.ts'

interface Person {
  readonly name?: Personal<string>
  readonly street?: Personal<string>
  readonly city?: string
  readonly visits: number
}
type PersonEvent =
  | {
      readonly type: 'registered'
      readonly payload: {
        readonly personId: string
        readonly name: Personal<string>
        readonly address?: { readonly street: Personal<string>; readonly city: string }
      }
    }
  | {
      readonly type: 'visited'
      readonly payload: { readonly personId: string; readonly by?: Personal<string>; readonly host?: string }
    }

const person = {
  type: 'person',
  initialState: { visits: 0 } as Person,
  evolve: (state: Person, event: PersonEvent): Person =>
    event.type === 'registered'
      ? { ...state, name: event.payload.name, ...event.payload.address }
      : { ...state, visits: state.visits + 1 },
  events: {
    registered: {
      personal: { fields: ['name', 'address.street'], subject: (payload: { personId: string }) => payload.personId },
    },
    visited: {
      personal: [
        { fields: ['by'], subject: (payload: { host?: string; personId: string }) => payload.host ?? payload.personId },
      ],
    },
  },
} as const

const anyText: unknown = expect.any(String)
const secretName = 'Ada Überall "x"'
const secretStreet = 'Secret Street 7'

function registered(personId: string): PersonEvent {
  return {
    type: 'registered',
    payload: { personId, name: secretName, address: { street: secretStreet, city: 'Linz' } },
  }
}

describeEachPostgres('forgetting', (server) => {
  const bench = useEvents(server)

  function people(options?: Partial<TrunklineOptions>): {
    trunkline: Trunkline
    people: Aggregate<Person, PersonEvent>
  } {
    const trunkline = bench.open(options)
    return { trunkline, people: declare(trunkline) }
  }
  function declare(trunkline: Trunkline): Aggregate<Person, PersonEvent> {
    return trunkline.events.aggregate<Person, PersonEvent>({ ...person, snapshotEvery: 1 })
  }

  /** Every row of every table of the schema in which one of the texts is, as the table's name and the row. */
  async function leaks(...texts: string[]): Promise<string[]> {
    const tables = await bench
      .database()
      .query<{ name: string }>(
        `select relname::text as name from pg_class where relnamespace = 'trunkline'::regnamespace and relkind in ('r', 'p', 'm')`,
      )
    const found: string[] = []
    for (const { name } of tables) {
      const rows = await bench.database().query<{ row: string }>(`select t::text as row from trunkline."${name}" as t`)
      for (const { row } of rows) {
        const forms = texts.flatMap((text) => [
          text,
          JSON.stringify(text).slice(1, -1),
          Buffer.from(text).toString('base64').slice(0, -4),
        ])
        if (forms.some((form) => row.includes(form) || row.includes(form.replaceAll('"', '""'))))
          found.push(`${name}: ${row}`)
      }
    }
    return found
  }

  test('personal fields are sealed in the table, and read as they were', async () => {
    const { trunkline, people: all } = people()
    const id = bench.newId()
    const { state, events } = await all.handle(id, () => registered(id))
    expect(state).toEqual({ visits: 0, name: secretName, street: secretStreet, city: 'Linz' })
    expect(events[0]?.payload).toEqual(registered(id).payload)
    const [row] = await bench
      .database()
      .query<{ payload: Record<string, unknown> }>('select payload from trunkline.event where aggregate_id = $1', [id])
    expect(row?.payload).toEqual({
      personId: id,
      address: { city: 'Linz' },
      $personal: [{ subject: id, keyId: anyText, fields: ['name', 'address.street'], sealed: anyText }],
    })
    const [read] = await trunkline.events.read(`person-${id}`)
    expect(read?.payload).toEqual(registered(id).payload)
    // Without any declaration, too: what is sealed says so itself.
    const [plain] = await bench.open().events.read(`person-${id}`)
    expect(plain?.payload).toEqual(registered(id).payload)
    expect((await people().people.load(id)).state).toEqual(state)
    await trunkline.events.settled()
    const snapshots = await bench
      .database()
      .query('select from trunkline.aggregate_snapshot where aggregate_id = $1', [id])
    expect(snapshots).toHaveLength(1)
    expect(await leaks(secretName, secretStreet)).toEqual([])
  })

  test('after forgetting, nothing personal is in any table, and replay gives the placeholder', async () => {
    const { trunkline, people: all } = people()
    const other = people()
    const [id, kept] = [bench.newId(), bench.newId()]
    for (const one of [id, kept]) {
      await all.handle(one, () => registered(one))
      await other.people.load(one)
    }
    await trunkline.events.settled()
    await other.trunkline.events.settled()
    expect(await trunkline.events.forget(id)).toEqual({ isNew: true, snapshots: 1 })
    expect(await trunkline.events.forget(kept)).toEqual({ isNew: true, snapshots: 1 })
    const expected = { visits: 0, name: forgotten, street: forgotten, city: 'Linz' }
    // In memory, in another process' memory, from the rows; at once.
    for (const aggregate of [all, other.people, people().people]) {
      const { state, version } = await aggregate.load(id)
      // So that there is a snapshot of the version that others have in memory.
      await trunkline.events.settled()
      expect(state).toEqual(expected)
      expect([isForgotten(state.name), version]).toEqual([true, 1])
    }
    await trunkline.events.settled()
    await other.trunkline.events.settled()
    expect(await leaks(secretName, secretStreet)).toEqual([])
    expect(await trunkline.events.forget(id)).toEqual({ isNew: false, snapshots: 0 })
    const [read] = await trunkline.events.read(`person-${id}`)
    expect(read?.payload).toEqual({ personId: id, name: forgotten, address: { street: forgotten, city: 'Linz' } })
    // From a snapshot, which is JSON, it is recognised as well.
    const { state } = await people().people.load(id)
    expect(isForgotten(state.name)).toBe(true)
  })

  test('nothing personal can be written of the forgotten; other events, and placeholders, can', async () => {
    const { trunkline, people: all } = people()
    const id = bench.newId()
    await all.handle(id, () => registered(id))
    await trunkline.events.forget(id)
    const expected = { code: 'subject_forgotten', eventType: 'registered', stream: `person-${id}` }
    await expect(all.handle(id, () => registered(id))).rejects.toMatchObject(expected)
    await expect(trunkline.events.append(`person-${id}`, 'any', registered(id))).rejects.toMatchObject(expected)
    expect((await all.handle(id, () => ({ type: 'visited', payload: { personId: id } }))).version).toBe(2)
    const copied = await all.handle(id, ({ name = 'nobody' }) => ({
      type: 'registered',
      payload: { personId: id, name },
    }))
    expect(copied).toMatchObject({ version: 3, state: { visits: 1, name: forgotten } })
    expect((await people().people.load(id)).state).toEqual(copied.state)
    // Also of who was unknown when he was forgotten.
    const stranger = bench.newId()
    await trunkline.events.forget(stranger)
    await expect(all.handle(stranger, () => registered(stranger))).rejects.toMatchObject({ code: 'subject_forgotten' })
    expect(await trunkline.events.read(`person-${stranger}`)).toEqual([])
  })

  test('several subjects in one stream: one goes, the other stays', async () => {
    const { trunkline, people: all } = people()
    const [id, host] = [bench.newId(), bench.newId()]
    await all.handle(id, () => [registered(id), { type: 'visited', payload: { personId: id, by: 'a friend', host } }])
    await trunkline.events.forget(host)
    const read = await trunkline.events.read(`person-${id}`)
    expect(read.map(({ payload }) => payload)).toEqual([registered(id).payload, { personId: id, by: forgotten, host }])
    expect((await all.load(id)).state).toMatchObject({ name: secretName })
  })

  test('in the transaction of the caller, and gone with it', async () => {
    const { trunkline, people: all } = people()
    const id = bench.newId()
    await all.handle(id, () => registered(id))
    const tx = await bench.database().connect()
    await tx.query('begin')
    expect(await trunkline.events.forget(id, { tx })).toMatchObject({ isNew: true })
    await tx.query('rollback')
    expect((await all.load(id)).state.name).toBe(secretName)
    await tx.query('begin isolation level repeatable read')
    await expect(trunkline.events.forget(id, { tx })).rejects.toMatchObject({ code: 'invalid_argument' })
    await tx.query('rollback')
    await tx.query('begin')
    await trunkline.events.forget(id, { tx })
    await tx.query('commit')
    expect((await all.load(id)).state.name).toEqual(forgotten)
    for (const subject of ['', null, 'x'.repeat(1_001), 'a\0b'] as string[]) {
      await expect(trunkline.events.forget(subject)).rejects.toMatchObject({ code: 'invalid_subject' })
    }
  })

  test('a snapshot that is stored while its subject is forgotten is not left behind', async () => {
    const { trunkline, people: all } = people()
    const id = bench.newId()
    await all.handle(id, () => registered(id))
    await trunkline.events.settled()
    const [writer, forgetter] = [await bench.database().connect(), await bench.database().connect()]
    const [event] = await trunkline.events.read(`person-${id}`)
    const save = `select trunkline.save_aggregate_snapshot('person', '${id}', 7, 1, '${event?.id}', '{"name": "leak"}', '["${id}"]') as saved`

    // The snapshot is first: forgetting waits for it, and deletes it.
    await writer.query('begin')
    expect((await writer.query<{ saved: boolean }>(save)).rows[0]?.saved).toBe(true)
    const pid = await backendPid(forgetter)
    const forgetting = forgetter.query(`select trunkline.forget_subject('${id}')`)
    await untilBlocked(bench.database(), pid)
    await writer.query('commit')
    await forgetting
    expect(await leaks('leak')).toEqual([])

    // Forgetting is first: nothing is stored.
    const late = bench.newId()
    await all.handle(late, () => registered(late))
    await trunkline.events.settled()
    const [other] = await trunkline.events.read(`person-${late}`)
    await forgetter.query('begin')
    await forgetter.query(`select trunkline.forget_subject('${late}')`)
    const saving = writer.query<{ saved: boolean }>(save.replaceAll(id, late).replaceAll(event!.id, other!.id))
    await untilBlocked(bench.database(), await pidOf(writer))
    await forgetter.query('commit')
    expect((await saving).rows[0]?.saved).toBe(false)
    expect(await leaks('leak')).toEqual([])
  })

  /** Of a connection that is busy. */
  async function pidOf(client: object): Promise<number> {
    return (client as { processID: number }).processID
  }

  test(
    'an append against forgetting: it is refused, or its data is unreadable from then on',
    { retry: 0 },
    async () => {
      const { trunkline, people: all } = people()
      const instances = [all, people().people, people().people]
      for (let round = 0; round < 15; round += 1) {
        const id = bench.newId()
        const appends = instances.map(async (aggregate, index) => {
          for (let n = 0; n < 4; n += 1) {
            await aggregate.handle(id, () => ({
              type: 'registered',
              payload: { personId: id, name: `${secretName} ${index} ${n}` },
            }))
          }
        })
        const forgetting = (async () => {
          if (round % 3 > 0) await all.load(id)
          await trunkline.events.forget(id)
        })()
        const outcomes = await Promise.allSettled(appends)
        await forgetting
        for (const outcome of outcomes) {
          if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'subject_forgotten' })
        }
        for (const aggregate of [...instances, people().people]) {
          const { state } = await aggregate.load(id)
          expect([undefined, forgotten]).toContainEqual(state.name)
        }
      }
      await trunkline.events.settled()
      await trunkline.stop()
      expect(await leaks(secretName)).toEqual([])
    },
  )

  test('what is sealed is bound to its event, its stream and its subject', async () => {
    const { trunkline, people: all } = people()
    const [id, other] = [bench.newId(), bench.newId()]
    await all.handle(id, () => registered(id))
    await all.handle(other, () => registered(other))
    const [source] = await bench
      .database()
      .query<{ payload: { $personal: { subject: string }[] }; id: string }>(
        'select payload, id from trunkline.event where aggregate_id = $1',
        [id],
      )
    /** By who may write to the table. */
    const copy = async (stream: string, payload: object, version = 1): Promise<unknown> => {
      await bench.database().query(
        `insert into trunkline.event (id, aggregate_type, aggregate_id, version, type, payload)
        values ($1, 'person', $2, $3, 'registered', $4)`,
        [randomUUID(), stream.slice('person-'.length), version, JSON.stringify(payload)],
      )
      return trunkline.events.read(stream)
    }
    const unreadable = { code: 'personal_data_unreadable', eventType: 'registered' }
    // Another event of the same stream, another stream, another subject's name on it, another field.
    await expect(copy(`person-${id}`, source!.payload, 2)).rejects.toMatchObject({ ...unreadable, version: 2 })
    const [box] = source!.payload.$personal
    for (const $personal of [
      [box],
      [{ ...box, fields: ['name', 'address.town'] }],
      [{ ...box, sealed: 'AAAA' }],
      'x',
      [{}],
    ]) {
      await expect(copy(`person-${bench.newId()}`, { $personal })).rejects.toMatchObject({ ...unreadable, version: 1 })
    }
    // With the name of another key there is no key for it, as after forgetting.
    expect(await copy(`person-${bench.newId()}`, { $personal: [{ ...box, subject: other }] })).toMatchObject([
      { payload: { name: forgotten } },
    ])
    const prototype = await copy(`person-${bench.newId()}`, {
      $personal: [{ ...box, keyId: 'x', fields: ['__proto__.polluted'] }],
    })
    expect(prototype).toHaveLength(1)
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
    await expect(
      trunkline.events.append(`free-${id}`, 0, { type: 'x', payload: { $personal: [] } }),
    ).rejects.toMatchObject({
      code: 'invalid_payload',
    })
  })

  test('the same event sent again is recognised, sealed or not', async () => {
    const { trunkline } = people()
    const id = bench.newId()
    const event = { ...registered(id), id: randomUUID().toUpperCase() }
    const first = await trunkline.events.append(`person-${id}`, 0, event)
    expect(await people().trunkline.events.append(`person-${id}`, 0, event)).toEqual({ ...first, isRepeated: true })
    const changed = { ...event, payload: { ...event.payload, name: 'Eve' } }
    await expect(trunkline.events.append(`person-${id}`, 0, changed as never)).rejects.toMatchObject({
      code: 'event_id_taken',
    })
  })

  test('without the keys (a dump that leaves them out) there are placeholders, also when the subject comes back', async () => {
    const { trunkline, people: all } = people()
    const id = bench.newId()
    await all.handle(id, () => registered(id))
    await trunkline.events.settled()
    await bench.database().query('delete from trunkline.subject_key where subject = $1', [id])
    for (const aggregate of [all, people().people]) {
      expect((await aggregate.load(id)).state).toMatchObject({ name: forgotten, city: 'Linz' })
    }
    await trunkline.events.append(`person-${id}`, 1, { type: 'registered', payload: { personId: id, name: 'Bob' } })
    expect(
      (await trunkline.events.read(`person-${id}`)).map(({ payload }) => (payload as { name: unknown }).name),
    ).toEqual([forgotten, 'Bob'])
  })

  test('with a master key the table of keys alone opens nothing; master keys may be changed', async () => {
    const [first, second] = [randomBytes(32), randomBytes(32)]
    const id = bench.newId()
    await people({ events: { masterKeys: [first] } }).people.handle(id, () => registered(id))
    await expect(people().people.load(id)).rejects.toMatchObject({ code: 'unknown_master_key' })
    await expect(people({ events: { masterKeys: [second] } }).people.load(id)).rejects.toMatchObject({
      code: 'unknown_master_key',
    })
    const both = people({ events: { masterKeys: [second, first] } })
    expect((await both.people.load(id)).state).toMatchObject({ name: secretName })
    const other = bench.newId()
    await both.people.handle(other, () => registered(other))
    await both.trunkline.events.settled()
    expect((await people({ events: { masterKeys: [second] } }).people.load(other)).state).toMatchObject({
      name: secretName,
    })
    // A key of one subject in the row of another.
    await bench
      .database()
      .query(
        `update trunkline.subject_key as k set secret = o.secret from trunkline.subject_key as o where k.subject = $1 and o.subject = $2`,
        [other, id],
      )
    await bench
      .database()
      .query(
        'update trunkline.subject_key set master_key = (select master_key from trunkline.subject_key where subject = $2) where subject = $1',
        [other, id],
      )
    await expect(Promise.resolve(both.trunkline.events.read(`person-${other}`))).rejects.toMatchObject({
      code: 'subject_key_unreadable',
    })
    await both.trunkline.events.forget(other)
    expect(() => bench.open({ events: { masterKeys: [randomBytes(16)] } })).toThrow(
      expect.objectContaining({ code: 'invalid_option' }),
    )
  })

  test('a subject that is none is refused before anything is written', async () => {
    const { people: all } = people()
    const id = bench.newId()
    await expect(all.handle(id, () => registered(null as never))).rejects.toMatchObject({ code: 'invalid_subject' })
    expect((await all.load(id)).version).toBe(0)
  })

  test.each<[string, (value: unknown) => unknown]>([
    ['an issue of the field', (value) => ({ issues: [{ message: `was ${String(value)}`, path: ['name'] }] })],
    ['an issue of all', (value) => ({ issues: [{ message: `was ${String(value)}` }] })],
    [
      'an error',
      (value) => {
        throw new Error(`was ${String(value)}`)
      },
    ],
  ])('what a schema says of personal data is told to nobody: %s', async (_, answer) => {
    const { events } = bench.open()
    const schema = {
      '~standard': {
        version: 1 as const,
        vendor: 'test',
        validate: (payload: unknown) => answer((payload as { name: string }).name) as { issues: [] },
      },
    }
    events.declare({
      type: 'person',
      events: {
        registered: {
          schema,
          personal: { fields: ['name'], subject: (payload: { personId: string }) => payload.personId },
        },
      },
    } as never)
    const id = bench.newId()
    const error = await events.append(`person-${id}`, 0, registered(id)).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'invalid_payload', eventType: 'registered', stream: `person-${id}` })
    expect(inspect(error, { depth: 20 })).not.toContain(secretName.slice(0, 4))
    expect(await events.read(`person-${id}`)).toEqual([])
  })

  test('a subject that cannot be told names event and stream', async () => {
    const { people: all } = people()
    const id = bench.newId()
    const failing = all.handle(id, () => ({ type: 'registered', payload: null as never }))
    await expect(failing).rejects.toMatchObject({ stream: `person-${id}` })
    expect((await all.load(id)).version).toBe(0)
  })

  test('a connection that breaks while somebody is forgotten is an error, and the process lives', async () => {
    const pool = new pg.Pool({ connectionString: bench.database().url })
    onTestFinished(() => pool.end())
    pool.on('error', () => undefined)
    const { people: aggregate, trunkline } = people({ pool })
    const personId = bench.newId()
    await aggregate.handle(personId, () => registered(personId))
    await trunkline.events.settled()
    pool.once('acquire', (client: pg.PoolClient) => {
      const query = client.query.bind(client) as (text: string, values?: unknown[]) => Promise<unknown>
      const breakAfterBegin = async (text: string, values?: unknown[]): Promise<unknown> => {
        const result = await query(text, values)
        if (!text.startsWith('begin')) return result
        const { rows } = (await query('select pg_backend_pid() as pid')) as { rows: { pid: number }[] }
        await terminateBackends(bench.database(), { where: 'pid = $1', values: [rows[0]?.pid] })
        return result
      }
      Object.assign(client, { query: breakAfterBegin })
    })
    await expect(trunkline.events.forget(personId)).rejects.toMatchObject({
      code: 'connection_failed',
      cause: { code: '57P01' },
    })
    expect((await aggregate.load(personId)).state.name).toBe(secretName)
  })

  test('a personal field within another one is read back with it, whosever they are, in whatever order they are declared', async () => {
    interface Nested {
      readonly owner: string
      readonly guest: string
      readonly home: Personal<{ street: Personal<string>; city: string }>
    }
    for (const [type, fields] of [
      ['inner', ['home.street', 'home']],
      ['outer', ['home', 'home.street']],
    ] as const) {
      const { trunkline } = people()
      const [owner, guest] = [bench.newId(), bench.newId()]
      const payload = { owner, guest, home: { street: secretStreet, city: 'Linz' } }
      const one = (personal: PersonalDeclaration<Nested> | PersonalDeclaration<Nested>[]) => ({
        type,
        events: { moved: { personal } },
      })
      trunkline.events.declare<{ type: 'moved'; payload: Nested }>(one({ fields, subject: (moved) => moved.owner }))
      await trunkline.events.append(`${type}-1`, 'no-stream', { type: 'moved', payload })
      expect(await leaks(secretStreet)).toEqual([])
      expect(await trunkline.events.read(`${type}-1`)).toMatchObject([{ payload }])

      const both: PersonalDeclaration<Nested>[] = [
        { fields: ['home'], subject: (moved) => moved.owner },
        { fields: ['home.street'], subject: (moved) => moved.guest },
      ]
      trunkline.events.declare<{ type: 'moved'; payload: Nested }>(one(type === 'inner' ? both.toReversed() : both))
      await trunkline.events.append(`${type}-2`, 'no-stream', { type: 'moved', payload })
      expect(await trunkline.events.read(`${type}-2`)).toMatchObject([{ payload }])
      await trunkline.events.forget(guest)
      const [read] = await trunkline.events.read(`${type}-2`)
      const { home } = read!.payload as Nested
      expect(home).toMatchObject({ city: 'Linz' })
      expect(isForgotten((home as { street: unknown }).street)).toBe(true)
      await trunkline.events.forget(owner)
      const [gone] = await trunkline.events.read(`${type}-2`)
      expect((gone!.payload as Nested).home).toEqual(forgotten)

      // Of a field that is forgotten nothing is there, also not what somebody else has in it.
      const [host, visitor] = [bench.newId(), bench.newId()]
      await trunkline.events.append(`${type}-3`, 'no-stream', {
        type: 'moved',
        payload: { ...payload, owner: host, guest: visitor },
      })
      await trunkline.events.forget(host)
      const [hidden] = await trunkline.events.read(`${type}-3`)
      expect((hidden!.payload as Nested).home).toEqual(forgotten)
    }
  })
})
