import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import type { Change } from '../../src/log/index.ts'
import { useTrunklineDatabase } from '../log/captured.ts'
import { describeEachPostgres, eventually, terminateBackends, type TestDatabase } from '../support/index.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** A `trunkline tail` that runs. */
class Tail {
  readonly lines: string[] = []
  complaints = ''
  readonly #process: ChildProcess
  readonly exited: Promise<unknown[]>

  constructor(database: TestDatabase, args: readonly string[]) {
    this.#process = spawn(process.execPath, [main, 'tail', ...args], {
      env: { ...process.env, DATABASE_URL: database.url, TRUNKLINE_LOG_LEVEL: 'debug' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.exited = once(this.#process, 'exit')
    const { stdout, stderr } = this.#process
    if (stdout === null || stderr === null) throw new Error('The process has no output.')
    createInterface({ input: stdout }).on('line', (line) => this.lines.push(line))
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.complaints += text
    })
    onTestFinished(() => void this.#process.kill('SIGKILL'))
  }

  get changes(): Change[] {
    return this.lines.map((line) => JSON.parse(line) as Change)
  }

  async end(signal: NodeJS.Signals): Promise<unknown> {
    this.#process.kill(signal)
    return (await this.exited)[0]
  }

  closeOutput(): void {
    this.#process.stdout?.destroy()
  }
}

describeEachPostgres('trunkline tail', (server) => {
  const database = useTrunklineDatabase(server)

  async function tail(args: readonly string[]): Promise<Tail> {
    return new Tail(database(), args)
  }

  async function createTable(name: string): Promise<void> {
    await database().query(`create table ${name} (id bigint primary key, price numeric)`)
    await database().query('select trunkline.capture($1)', [name])
  }

  /** Holds the advisory lock, or at least looked: it will have what is written from now on. */
  async function untilFollowing(): Promise<void> {
    await eventually(
      async () =>
        (
          await database().adminQuery(
            "select from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and database = (select oid from pg_database where datname = current_database())",
          )
        ).length > 0,
      { what: 'the reader sleeps' },
    )
  }

  test('--once prints what is committed and ends', async () => {
    await createTable('once')
    await database().query('insert into once values (9007199254740993, 1.10); update once set price = 2.50')
    await database().query(`select trunkline.emit('order', 'a key', 'created', '{"total": 1.0}')`)
    const json = await tail(['--once', '--json', '--table', 'once', '--topic', 'order'])
    expect((await json.exited)[0], json.complaints).toBe(0)
    expect(json.lines.map((line) => Object.keys(JSON.parse(line) as object))).toEqual(
      json.lines.map(() => [
        'position',
        'id',
        'xid',
        'messageId',
        'topic',
        'key',
        'type',
        'table',
        'operation',
        'old',
        'new',
        'payload',
        'headers',
        'createdAt',
      ]),
    )
    expect(json.changes).toMatchObject([
      {
        operation: 'insert',
        table: 'public.once',
        key: '9007199254740993',
        new: { id: '9007199254740993', price: '1.10' },
      },
      { operation: 'update', old: { price: '1.10' }, new: { price: '2.50' } },
      { operation: null, topic: 'order', key: 'a key', type: 'created' },
    ])
    expect(json.lines[2]).toContain('"payload":{"total":1.0}')
    const text = await tail(['--once', '--table', 'once', '--topic', 'order'])
    expect((await text.exited)[0]).toBe(0)
    expect(text.lines.map((line) => line.replace(/^\S+ +/, ''))).toEqual([
      'insert   public.once 9007199254740993 {"id":"9007199254740993","price":"1.10"}',
      'update   public.once 9007199254740993 price: "1.10" -> "2.50"',
      'event    order "a key" created {"total":1.0}',
    ])
    const rest = await tail(['--once', '--json', '--table', 'once', '--from', json.changes[0]!.position])
    expect((await rest.exited)[0]).toBe(0)
    expect(rest.changes.map((change) => change.id)).toEqual([json.changes[1]?.id])
  })

  test('follows, woken by commits, through a lost connection, until it is told to end', async () => {
    await createTable('followed')
    const process = await tail(['--json', '--table', 'followed'])
    await untilFollowing()
    await database().query('insert into followed values (1, 1)')
    await eventually(() => process.lines.length === 1)
    await untilFollowing()
    await terminateBackends(database(), { where: "application_name like 'trunkline%'" })
    await database().query('insert into followed values (2, 1)')
    await eventually(() => process.lines.length === 2)
    const client = await database().connect()
    await client.query('begin; insert into followed values (3, 1)')
    await client.query('rollback')
    await database().query('insert into followed values (4, 1)')
    await eventually(() => process.lines.length === 3)
    expect(process.changes.map((change) => change.new?.['id'])).toEqual(['1', '2', '4'])
    expect(await process.end('SIGTERM'), process.complaints).toBe(0)
  })

  test('ends when nobody reads it any more', async () => {
    await createTable('unread')
    const process = await tail(['--table', 'unread', '--from', 'beginning'])
    await untilFollowing()
    process.closeOutput()
    await database().query('insert into unread values (1)')
    await eventually(async () => {
      await database().query('insert into unread select max(id) + 1 from unread')
      return Promise.race([process.exited, Promise.resolve(undefined)])
    })
    expect((await process.exited)[0]).toBe(0)
  })

  test.each([
    { args: ['--table', 'nowhere'], code: 2, says: 'table public.nowhere does not exist' },
    { args: ['--from', 'yesterday'], code: 2, says: '"yesterday" is no position' },
    { args: ['--schema', 'elsewhere'], code: 1, says: 'trunkline migrate' },
    { args: ['--unknown'], code: 2, says: 'unknown option' },
  ])('refuses $args', async ({ args, code, says }) => {
    const process = await tail(args)
    expect((await process.exited)[0]).toBe(code)
    expect(process.complaints).toContain(says)
    expect(process.lines).toEqual([])
  })
})
