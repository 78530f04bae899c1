import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  createDatabase,
  describeEachPostgres,
  type TestDatabase,
  untilBackends,
  useDatabase,
} from '../support/index.ts'
import { objectsOf, type Run, trunkline } from './trunkline.ts'

describeEachPostgres('the commands', (server) => {
  const database = useDatabase(server)

  function run(...args: string[]): Promise<Run> {
    return trunkline(args, { env: { DATABASE_URL: database().url } })
  }

  test('migrate, capture, emit, status, release, uninstall: one after the other', async () => {
    await database().query('create table code (id integer primary key, secret text); create schema "Odd Schema"')
    await database().query('create table "Odd Schema"."T ü" (id integer primary key)')
    const dry = await run('migrate', '--dry-run', '--json')
    expect(objectsOf(dry)).toMatchObject([{ schema: 'trunkline', dryRun: true }])
    expect(await database().query("select from pg_namespace where nspname = 'trunkline'")).toEqual([])
    expect(await run('migrate')).toMatchObject({ code: 0, stderr: '' })
    expect((await run('migrate')).stdout).toBe('Schema "trunkline" is up to date.\n')

    const captured = await run('capture', 'code', '"Odd Schema"."T ü"', '--json')
    expect(captured.code).toBe(0)
    expect(objectsOf(captured)).toMatchObject([{ table: 'code', captured: true }, { table: '"Odd Schema"."T ü"' }])
    expect((await run('capture', 'code', '--exclude', 'secret', '--where', 'id > 0', '--wake', 'off')).code).toBe(0)
    await database().query("insert into code values (1, 's'), (-1, 's')")

    const emitted = await run(
      'emit',
      '--topic',
      'order',
      '--key',
      '42',
      '--type',
      'created',
      '--payload',
      '{"total": 12345678901234567890.10}',
      '--header',
      'a=b=c',
      '--header',
      'd=',
      '--json',
    )
    expect(objectsOf(emitted)).toMatchObject([{ topic: 'order', key: '42', type: 'created' }])
    const log = await database().query(
      "select operation::text, new::text, key, type, payload::text, headers from trunkline.log where operation in ('i', 'e') order by id",
    )
    expect(log).toMatchObject([
      { operation: 'i', new: '{"id":1}' },
      {
        operation: 'e',
        key: '42',
        type: 'created',
        payload: '{"total": 12345678901234567890.10}',
        headers: { a: 'b=c', d: '' },
      },
    ])

    await database().query("insert into trunkline.reader (name, position, snapshot) values ('relay', 'p', '1:1:')")
    const status = objectsOf(await run('status', '--json'))
    expect(status.map(({ kind }) => kind)).toEqual([
      'installation',
      'table',
      'table',
      'slot',
      'slot',
      'slot',
      'reader',
      'events',
    ])
    expect(status).toContainEqual(
      expect.objectContaining({
        table: 'public.code',
        exclude: ['secret'],
        where: 'id > 0',
        wake: 'off',
        missingTriggers: [],
      }),
    )
    const reader = status.find(({ kind }) => kind === 'reader')
    expect(reader).toMatchObject({ name: 'relay', alive: true })
    expect(reader?.['behindRows']).toBeGreaterThan(2)
    const shown = await run('status')
    expect(shown.stdout).toContain('public.code')
    expect(shown.stdout).toContain('"Odd Schema"."T ü"')

    expect(objectsOf(await run('release', 'code', '--json'))).toEqual([{ table: 'code', released: true }])
    expect((await run('release', 'code')).stdout).toBe('code was not captured.\n')
    const removed = await run('uninstall', '--json')
    expect(objectsOf(removed)).toMatchObject([{ removed: true, released: ['"Odd Schema"."T ü"'] }])
    expect(objectsOf(await run('uninstall', '--json'))).toMatchObject([{ removed: false }])
    expect((await run('status')).code).toBe(1)
  })

  test('url and schema: the option before the environment before the configuration module', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'trunkline-cli-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    await writeFile(
      join(directory, 'trunkline.config.ts'),
      `const url: string = ${JSON.stringify(database().url)}\nexport default { url, schema: 'from_file' }\n`,
    )
    const schemaOf = async (args: string[], env = {}): Promise<unknown> =>
      objectsOf(await trunkline(['migrate', '--dry-run', '--json', ...args], { cwd: directory, env }))[0]?.['schema']
    expect(await schemaOf([])).toBe('from_file')
    expect(await schemaOf([], { TRUNKLINE_SCHEMA: 'from_env' })).toBe('from_env')
    expect(await schemaOf(['--schema', 'from option'], { TRUNKLINE_SCHEMA: 'from_env' })).toBe('from option')
    const unreachable = 'postgres://u:p@127.0.0.1:1/d'
    expect(await schemaOf(['--url', database().url], { DATABASE_URL: unreachable })).toBe('from_file')
    expect((await trunkline(['status'], { cwd: directory, env: { DATABASE_URL: unreachable } })).stderr).toContain(
      'ECONNREFUSED',
    )
    await writeFile(join(directory, 'broken.ts'), 'export const url = 1')
    const broken = await trunkline(['status', '--config', 'broken.ts'], { cwd: directory })
    expect(broken).toMatchObject({ code: 2 })
    expect(broken.stderr).toContain('no default export')
  })

  test('a signal: what is waited for ends, the exit code is 0', async () => {
    await using own: TestDatabase = await createDatabase(server)
    const env = { DATABASE_URL: own.url }
    expect((await trunkline(['migrate'], { env })).code).toBe(0)
    await own.query('create table held (id integer)')
    const holder = await own.connect()
    await holder.query('begin; insert into held values (1)')
    let pid = 0
    const running = trunkline(['capture', 'held', 'held'], {
      env,
      onStart: (started) => {
        pid = started
      },
    })
    await untilBackends(own, { where: "application_name = 'trunkline capture' and wait_event_type = 'Lock'" })
    process.kill(pid, 'SIGTERM')
    expect(await running).toMatchObject({ code: 0, stdout: '' })
    await holder.query('rollback')
    expect(await own.query('select from trunkline.topic')).toEqual([])
  })

  test('names what is wrong, with the mend, and exits 2; what failed exits 1', async () => {
    await database().query(
      'create table if not exists fine (id integer primary key); create view seen as select 1 as one',
    )
    await run('migrate')
    const wrong: [string[], number, RegExp][] = [
      [['capture', 'nowhere'], 2, /public\.nowhere does not exist\. Check schema/],
      [['capture', 'seen'], 2, /is a view and cannot be captured\. Capture the tables it reads/],
      [['capture', 'fine', '--exclude', 'nope'], 2, /'nope'.*Its columns: id/],
      [['capture', 'fine', '--where', 'nope = 1'], 2, /nope.*after WHERE/s],
      [['release', 'nowhere'], 2, /does not exist/],
      [['status', '--schema', 'nowhere'], 1, /Schema "nowhere" does not exist.*trunkline migrate/s],
      [['capture', 'fine', '--schema', 'nowhere'], 1, /trunkline migrate/],
    ]
    for (const [args, code, message] of wrong) {
      const result = await run(...args)
      expect(result, args.join(' ')).toMatchObject({ code, stdout: '' })
      expect(result.stderr).toMatch(message)
    }
    const asUser = await trunkline(['capture', 'fine'], { env: { DATABASE_URL: database().userUrl } })
    expect(asUser.code).toBe(1)
    expect(asUser.stderr).toMatch(/permission denied/)
  })
})

describe('the command line', () => {
  test.each<[string[], RegExp]>([
    [['nonsense'], /unknown command 'nonsense'/],
    [[], /Usage: trunkline/],
    [['status', '--nonsense'], /unknown option '--nonsense'/],
    [['capture'], /missing required argument 'table'/],
    [['capture', 't', '--rows', 'some'], /Allowed choices are full, keys/],
    [['status', 'extra'], /too many arguments/],
    [['status'], /No database was named.*DATABASE_URL/],
    [['status', '--url', 'nonsense'], /--url is not a URL.*For example: postgres:\/\/user:password@localhost/],
    [['status', '--url', 'mysql://localhost/d'], /expected a PostgreSQL URL/],
    [['status', '--url', 'postgres://localhost/d?sslmode=bogus'], /unknown sslmode "bogus".*verify-full/],
    [['emit', '--topic', 't', '--payload', '{'], /no JSON/],
    [['emit', '--topic', 't', '--payload', '1', '--header', 'x'], /name=value/],
    [['emit', '--payload', '1'], /--topic/],
    [['migrate', '--print', '--after', '999'], /the last one is/],
    [['migrate', '--print', '--dry-run'], /exclude each other/],
    [['migrate', '--after', '3'], /where '--print' begins/],
    [['migrate', '--print', '--schema', ''], /name of the schema is empty/],
  ])('%j is wrong usage', async (args, message) => {
    const result = await trunkline(args)
    expect(result).toMatchObject({ code: 2, stdout: '' })
    expect(result.stderr).toMatch(message)
  })

  test('a server that cannot be reached is a failure', async () => {
    const result = await trunkline(['migrate', '--url', 'postgres://me:hidden@127.0.0.1:1/d'])
    expect(result).toMatchObject({ code: 1, stdout: '' })
    expect(result.stderr).toMatch(/ECONNREFUSED.*Check that the server runs/)
  })

  test('secrets are never printed', async () => {
    for (const args of [
      ['status', '--url', 'postgres://me:hidden@127.0.0.1:1/d?password=hidden'],
      ['status', '--ulr=postgres://me:hidden@127.0.0.1/d'],
      // Not encoded, as people write it.
      ['status', '--ulr=postgres://me:h@hidden@127.0.0.1/d'],
      ['postgres://me:hidden@127.0.0.1/d'],
      ['status', '--url', 'mysql://me:hidden@127.0.0.1/d'],
      ['status', '--url', 'postgres://me:hidden@[/d'],
    ]) {
      const result = await trunkline(args, { env: { TRUNKLINE_LOG_LEVEL: 'debug' } })
      expect(result.code).not.toBe(0)
      expect(result.stdout + result.stderr).not.toContain('hidden')
    }
  })

  test('TRUNKLINE_LOG_LEVEL', async () => {
    const result = await trunkline(['migrate', '--print'], { env: { TRUNKLINE_LOG_LEVEL: 'loud' } })
    expect(result).toMatchObject({ code: 2 })
    expect(result.stderr).toContain('Set it to one of debug, info, warn, error, silent')
  })

  test('--print needs no database, and --json holds the file in one object', async () => {
    const plain = await trunkline(['migrate', '--print', '--schema', 'Odd'])
    expect(plain).toMatchObject({ code: 0, stderr: '' })
    expect(plain.stdout).toMatch(/^-- trunkline [\s\S]*\nbegin;\n[\s\S]*create table "Odd"\.log \([\s\S]*\ncommit;\n$/)
    const [object] = objectsOf(await trunkline(['migrate', '--print', '--schema', 'Odd', '--json']))
    expect(object?.['sql']).toBe(plain.stdout)
  })

  test('every command has a help with an example', async () => {
    const help = await trunkline(['--help'])
    expect(help.code).toBe(0)
    const names = [...help.stdout.matchAll(/^ {2}([a-z]+) /gm)]
      .map(([, name = '']) => name)
      .filter((name) => name !== 'help')
    expect(names).toEqual(
      expect.arrayContaining(['migrate', 'uninstall', 'capture', 'release', 'emit', 'status', 'doctor']),
    )
    for (const name of names) {
      const result = await trunkline([name, '--help'])
      expect(result.code).toBe(0)
      expect(result.stdout).toMatch(new RegExp(`Examples?:\\n  trunkline ${name}`))
    }
  })
})

describe('trunkline bench', () => {
  test('refuses a name that there is not, and lists those that there are', async () => {
    const { code, stderr } = await trunkline(['bench', 'nonsense'])
    expect(code).toBe(2)
    expect(stderr).toMatch(/There is no benchmark "nonsense".*write-cost/)
    expect((await trunkline(['bench', '--postgres', '11'])).code).toBe(2)
  })
})
