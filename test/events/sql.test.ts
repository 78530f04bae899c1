import pg from 'pg'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type RecordedEvent } from '../../src/index.ts'
import { uninstall } from '../../src/schema/index.ts'
import { install, sqlStateOf } from '../log/captured.ts'
import { createDatabase, describeEachPostgres, useDatabase, USER_ROLE } from '../support/index.ts'

function sameId(digit: string): string {
  return `{"type": "a", "id": "${digit}0000000-0000-7000-8000-000000000000"}`
}

describeEachPostgres('the event store in SQL', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  async function read(stream: string): Promise<RecordedEvent[]> {
    const trunkline = createTrunkline({ url: database().url })
    onTestFinished(() => trunkline.stop())
    return trunkline.events.read(stream)
  }

  async function append(...args: unknown[]): Promise<unknown> {
    const [row] = await database().query<{ append: string }>('select trunkline.append($1, $2, $3)', args)
    return row?.append
  }

  test('appends one event or several, in every mode, and gives the version', async () => {
    const query = async (text: string): Promise<unknown> =>
      (await database().query<{ append: string }>(text))[0]?.append
    expect(
      await query(`select trunkline.append('order-sql-1', 'no-stream', '{"type": "created", "payload": {"n": 1.50}}')`),
    ).toBe('1')
    expect(
      await query(
        `select trunkline.append('order-sql-1', 1, '[{"type": "a"}, {"type": "b", "payload": [null], "schemaVersion": 2, "metadata": {"userId": "u"}}]')`,
      ),
    ).toBe('3')
    expect(
      await query(
        `select trunkline.append('order-sql-1', 'any', '{"type": "c", "id": "018f3a4c-0000-7000-8000-0000000000aa"}')`,
      ),
    ).toBe('4')
    expect(await query(`select trunkline.append('order-sql-1', '4', '{"type": "d"}')`)).toBe('5')
    expect(
      await query(
        `select trunkline.append('order-sql-1', 'any', '{"type": "c", "id": "018f3a4c-0000-7000-8000-0000000000aa"}')`,
      ),
    ).toBe('4')
    expect(await query(`select trunkline.append('order-sql-1', 'stream-exists', '{"type": "e"}')`)).toBe('6')
    const events = await read('order-sql-1')
    expect(events.map(({ type, version, schemaVersion, payload }) => [type, version, schemaVersion, payload])).toEqual([
      ['created', 1, 1, { n: 1.5 }],
      ['a', 2, 1, null],
      ['b', 3, 2, [null]],
      ['c', 4, 1, null],
      ['d', 5, 1, null],
      ['e', 6, 1, null],
    ])
    expect(events[2]?.metadata).toEqual({ userId: 'u' })
    expect(events[0]?.id).toMatch(/^0[\da-f]{7}-[\da-f]{4}-7[\da-f]{3}-8/)
  })

  test('a conflict has a SQLSTATE, and says stream, expected and actual', async () => {
    await append('order-c', 'any', '{"type": "a"}')
    for (const [expected, shown] of [
      ['0', 'no-stream'],
      ['2', 2],
      ['no-stream', 'no-stream'],
    ] as const) {
      const error = await append('order-c', expected, '{"type": "b"}').catch(
        (thrown: unknown) => thrown as pg.DatabaseError,
      )
      expect(error).toMatchObject({ code: 'TL010' })
      expect(JSON.parse((error as pg.DatabaseError).detail ?? '')).toEqual({
        stream: 'order-c',
        expected: shown,
        actual: 1,
      })
    }
    const none = await append('order-none', 'stream-exists', '{"type": "b"}').catch(
      (thrown: unknown) => thrown as pg.DatabaseError,
    )
    expect(none).toMatchObject({ code: 'TL010', message: expect.stringContaining('order-none') as string })
  })

  test.each([
    ['', 'any', '{"type": "a"}', /stream/],
    ['-1', 'any', '{"type": "a"}', /stream/],
    ['order-w', 'any', '{"type": "a", "schemaVersion": "1.5"}', /event 1 has a schemaVersion/],
    ['order-w', 'any', '{"type": "a", "schemaVersion": -1}', /event 1 has a schemaVersion/],
    ['order-w', 'newest', '{"type": "a"}', /order-w: the expected version is 'newest'/],
    ['order-w', '-1', '{"type": "a"}', /order-w: the expected version is '-1'/],
    ['order-w', 'any', '[]', /order-w: events are an empty list/],
    ['order-w', 'any', '7', /order-w: events are a JSON number/],
    ['order-w', 'any', '[{"type": "a"}, 7]', /order-w: event 2 is a JSON number/],
    ['order-w', 'any', '[{"type": "a"}, {"payload": 1}]', /order-w: event 2 has no type/],
    ['order-w', 'any', '{"type": ""}', /event 1 has no type/],
    ['order-w', 'any', '{"type": "a", "metadata": []}', /event 1 has metadata/],
    ['order-w', 'any', '{"type": "a", "schemaVersion": 0}', /event 1 has a schemaVersion/],
    ['order-w', 'any', '{"type": "a", "id": "7"}', /event 1 has an id/],
    ['order-w', 'any', `[${sameId('A')}, {"type": "a"}, ${sameId('a')}]`, /event 3 has the id of another/],
    ['order-w', 'any', `[{"type": "a"}, ${sameId('a')}, ${sameId('a')}]`, /event 3 has the id of another/],
  ])('refuses stream %j, version %s, events %s', async (stream, expected, events, message) => {
    const refused = append(stream, expected, events)
    await expect(refused).rejects.toMatchObject({ code: 'TL005' })
    await expect(refused).rejects.toThrow(message)
    expect(await database().query(`select from trunkline.event where aggregate_id = 'w'`)).toEqual([])
  })

  test('refuses a stream whose name is longer than what the library reads', async () => {
    for (const [stream, bytes] of [
      [`long-${'ü'.repeat(500)}`, 1_005],
      ['x'.repeat(1_000), 1_000],
    ] as const) {
      const refused = append(stream, 'any', '{"type": "a"}')
      await expect(refused).rejects.toMatchObject({ code: 'TL005' })
      await expect(refused).rejects.toThrow(`has a name of ${bytes} bytes`)
    }
    const longest = `long-${'x'.repeat(995)}`
    await append(longest, 'any', '{"type": "a"}')
    expect(await read(longest)).toHaveLength(1)
  })

  test('nobody changes or removes an event', async () => {
    await append('order-i', 'any', '{"type": "a"}')
    for (const client of [await database().connect('owner'), await database().connect('admin')]) {
      for (const statement of [
        `update trunkline.event set type = 'b'`,
        'update trunkline.event set type = type where false',
        'delete from trunkline.event',
        'truncate trunkline.event',
      ]) {
        expect(await sqlStateOf(client.query(statement))).toBe('TL011')
      }
    }
    const admin = await database().connect('admin')
    await admin.query('set session_replication_role = replica')
    expect(await sqlStateOf(admin.query('delete from trunkline.event'))).toBe('TL011')
    expect((await read('order-i')).map(({ type }) => type)).toEqual(['a'])
  })

  test('a role may append and read, and write to nothing, once it is granted that', async () => {
    const user = await database().connect('user')
    const trunkline = createTrunkline({ url: database().userUrl })
    onTestFinished(() => trunkline.stop())
    const event = { type: 'a', payload: null }
    await expect(trunkline.events.append('order-r', 'any', event)).rejects.toMatchObject({ code: 'no_privilege' })
    await database().query(`select trunkline.grant_events($1)`, [USER_ROLE])
    await trunkline.events.append('order-r', 'any', event)
    await user.query(`select trunkline.append('order-r', 1, '{"type": "b"}')`)
    expect(await trunkline.events.read('order-r')).toHaveLength(2)
    expect((await trunkline.events.readAll()).length).toBeGreaterThan(1)
    expect(await trunkline.events.query({ stream: 'order-r' })).toHaveLength(2)
    expect(await Array.fromAsync(trunkline.events.streams({ category: 'order' }))).not.toEqual([])
    expect(await sqlStateOf(user.query('insert into trunkline.event select * from trunkline.event'))).toBe('42501')
    expect(await sqlStateOf(user.query('delete from trunkline.event'))).toBe('42501')
  })

  test('an uninstall keeps its hands off events, unless told otherwise', async () => {
    await using other = await createDatabase(server)
    await install(other.url)
    const pool = new pg.Pool({ connectionString: other.url, max: 1 })
    await other.query(`select trunkline.append('order-1', 'any', '{"type": "a"}')`)
    await expect(uninstall({ pool, schema: 'trunkline' })).rejects.toMatchObject({ code: 'events_stored' })
    expect(await other.query('select from trunkline.event')).toHaveLength(1)
    expect(await uninstall({ pool, schema: 'trunkline', dropEvents: true })).toMatchObject({
      removed: true,
      released: [],
      kept: [],
    })
    await pool.end()
  })
})
