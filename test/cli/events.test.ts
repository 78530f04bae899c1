import { beforeAll, expect, test } from 'vitest'
import { install } from '../log/captured.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'
import { objectsOf, type Run, trunkline } from './trunkline.ts'

describeEachPostgres('trunkline events', (server) => {
  const database = useDatabase(server)

  beforeAll(async () => {
    await install(database().url)
    await database().query(
      `select trunkline.append('order-17', n, jsonb_build_object('type', 'step', 'payload', n, 'metadata', jsonb_build_object('userId', 'u' || n % 2)))
       from generate_series(0, 4) as n`,
    )
    await database().query(
      `select trunkline.append('invoice-1', 0, '{"type": "sent", "payload": {"to": "a\\u001b[31m"}}')`,
    )
  })

  async function run(...args: string[]): Promise<Run> {
    return trunkline(['events', ...args, '--url', database().url])
  }

  test('shows a stream, by version and time', async () => {
    const all = await run('show', 'order-17', '--json')
    expect(all).toMatchObject({ code: 0, stderr: '' })
    expect(objectsOf(all).map(({ version, payload }) => [version, payload])).toEqual(
      [0, 1, 2, 3, 4].map((n) => [n + 1, n]),
    )
    expect(objectsOf(await run('show', 'order-17', '--to-version', '2', '--json'))).toHaveLength(2)
    expect(objectsOf(await run('show', 'order-17', '--from-version', '5', '--json'))).toMatchObject([
      { version: 5, stream: 'order-17' },
    ])
    expect(objectsOf(await run('show', 'order-17', '--as-of', '2020-01-01', '--json'))).toEqual([])
    expect(objectsOf(await run('show', 'order-17', '--as-of', 'tomorrow', '--json'))).toHaveLength(5)
    expect((await run('show', 'order-17')).stdout).toMatch(/order-17 1 {2}step {2}0 {2}\{"userId":"u0"\}\n/)
    expect((await run('show', 'order-18')).stdout).toBe('No event of order-18.\n')
    // Nothing of an event is obeyed by the terminal.
    expect((await run('show', 'invoice-1')).stdout).not.toContain('\u001b')
  })

  test('lists events and streams by what is asked', async () => {
    expect(objectsOf(await run('list', '--json'))).toHaveLength(6)
    expect(objectsOf(await run('list', '--metadata', '{"userId": "u1"}', '--json'))).toHaveLength(2)
    expect(
      objectsOf(await run('list', '--category', 'order', '--type', 'step', '--type', 'x', '--last', '2', '--json')),
    ).toMatchObject([{ version: 5 }, { version: 4 }])
    expect(objectsOf(await run('streams', '--json'))).toMatchObject([
      { stream: 'invoice-1', version: 1 },
      { stream: 'order-17', version: 5 },
    ])
    expect((await run('streams', '--category', 'order')).stdout).toMatch(/^STREAM +VERSION.*\norder-17 +5 /)
  })

  test('publishes, and status says so', async () => {
    expect((await run('publish', 'order')).stdout).toBe('Published from now on: order.\n')
    const status = await trunkline(['status', '--json', '--url', database().url])
    expect(objectsOf(status).find(({ kind }) => kind === 'events')).toMatchObject({
      openWriters: 0,
      published: ['order'],
      lastPosition: '6',
    })
    expect((await trunkline(['status', '--url', database().url])).stdout).toMatch(/Events about \d+,.*published: order/)
  })

  test('wrong usage is told', async () => {
    expect(await run('show', '-1')).toMatchObject({ code: 2 })
    for (const args of [['show', 'order-17', '--to-version', 'two'], ['list', '--metadata', '[1]'], ['show']]) {
      expect(await run(...args)).toMatchObject({ code: 2, stdout: '' })
    }
    expect((await trunkline(['events', '--help'])).stdout).toContain('trunkline events show order-17')
  })
})
