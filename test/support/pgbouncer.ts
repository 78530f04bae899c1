import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants, accessSync } from 'node:fs'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { guardServer } from '../../src/testing/embedded/orphan-guard.ts'
import {
  type ServerAccount,
  makePrivateDirectory,
  makeServerFile,
  serverAccount,
} from '../../src/testing/embedded/server-account.ts'
import type { TestDatabase } from './database.ts'
import { eventually } from './eventually.ts'
import { isMissing } from './requirement.ts'
import { OWNER_ROLE, USER_ROLE } from './server.ts'

/** A real PgBouncer before a test database. */
export interface PgBouncer extends AsyncDisposable {
  readonly port: number
  /** The database's owner through the pooler. */
  readonly url: string
  stop(): Promise<void>
}

export interface PgBouncerOptions {
  /** When a server connection goes back to the pool. Default `transaction`. */
  readonly poolMode?: 'session' | 'transaction' | 'statement'
  /** Server connections per role. Default 5. */
  readonly poolSize?: number
}

/** For `describe.skipIf(lacksPgBouncer())`. */
export function lacksPgBouncer(): boolean {
  return isMissing('PgBouncer', findPgBouncer() !== undefined, 'install the package pgbouncer')
}

/** Starts PgBouncer before a database. */
export async function startPgBouncer(database: TestDatabase, options: PgBouncerOptions = {}): Promise<PgBouncer> {
  const program = findPgBouncer()
  if (program === undefined) throw new Error('Expected the program pgbouncer on the PATH, found none.')
  const account = await serverAccount()
  const home = await mkdtemp(join(tmpdir(), 'trunkline-pgbouncer-'))
  await makePrivateDirectory(home, account)
  const port = await freePort()
  await writeConfiguration(home, account, configuration(database, port, home, options))
  const child = await spawnPgBouncer(program, home, account)
  const guard = guardServer(child.pid ?? 0, 'QUIT', home)
  const stop = async (): Promise<void> => {
    await end(child)
    guard.dismiss()
    await rm(home, { recursive: true, force: true })
  }
  await untilListening(child, port, join(home, 'pgbouncer.log')).catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { port, url: through(database.url, port), stop, [Symbol.asyncDispose]: stop }
}

function findPgBouncer(): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return directories.map((directory) => join(directory, 'pgbouncer')).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function configuration(database: TestDatabase, port: number, home: string, options: PgBouncerOptions): string {
  const target = new URL(database.server.url)
  return `[databases]
* = host=${target.hostname} port=${target.port || '5432'}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${join(home, 'users.txt')}
pool_mode = ${options.poolMode ?? 'transaction'}
default_pool_size = ${options.poolSize ?? 5}
max_client_conn = 500
`
}

/** The passwords are for the server behind; PgBouncer itself trusts its clients. */
async function writeConfiguration(home: string, account: ServerAccount | undefined, text: string): Promise<void> {
  const users = [OWNER_ROLE, USER_ROLE].map((role) => `"${role}" "${role}"\n`).join('')
  await makeServerFile(join(home, 'users.txt'), account, users)
  await makeServerFile(join(home, 'pgbouncer.ini'), account, text)
}

async function spawnPgBouncer(
  program: string,
  home: string,
  account: ServerAccount | undefined,
): Promise<ChildProcess> {
  const log = await open(join(home, 'pgbouncer.log'), 'a')
  try {
    const child = spawn(program, ['-q', join(home, 'pgbouncer.ini')], {
      cwd: '/',
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
      ...account,
    })
    await once(child, 'spawn')
    return child
  } finally {
    await log.close()
  }
}

async function untilListening(child: ChildProcess, port: number, logFile: string): Promise<void> {
  const listens = async (): Promise<boolean> => child.exitCode !== null || (await accepts(port))
  await eventually(listens, { what: `PgBouncer listens on port ${port}` })
  if (child.exitCode !== null) throw new Error(`PgBouncer ended at once: ${await readFile(logFile, 'utf8')}`)
  child.unref()
}

function accepts(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect({ port, host: '127.0.0.1' })
  socket.once('connect', () => resolve(true))
  socket.once('error', () => resolve(false))
  return promise.finally(() => socket.destroy())
}

/** QUIT ends PgBouncer at once, with its clients. */
async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.ref()
  const ended = once(child, 'exit')
  child.kill('SIGQUIT')
  await ended
}

function through(url: string, port: number): string {
  const pooled = new URL(url)
  pooled.hostname = '127.0.0.1'
  pooled.port = String(port)
  return pooled.href
}
