import { execFile } from 'node:child_process'
import { appendFile, readFile, readdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { type EmbeddedPostgresVersion, type ServerBinaries, findServerBinaries, serverBinariesIn } from './binaries.ts'
import { type EmbeddedPostgres, type EmbeddedPostgresOptions } from './contract.ts'
import { EmbeddedPostgresError } from './error.ts'
import { freePort } from './free-port.ts'
import {
  type ServerAccount,
  canReach,
  copyTree,
  makePrivateDirectory,
  makeServerFile,
  processOptions,
} from './server-account.ts'

/** Everything that is settled before the first start. */
export interface Preparation {
  readonly account: ServerAccount | undefined
  /** Temporary directory of this object: socket, log, and data and binaries where they have no other place. */
  readonly home: string
  readonly binaries: ServerBinaries
  readonly dataDirectory: string
  readonly port: number
}

/** Finds the binaries, makes the data directory and chooses the port. */
export async function prepare(
  options: EmbeddedPostgresOptions,
  home: string,
  account: ServerAccount | undefined,
): Promise<Preparation> {
  const binaries = await reachableBinaries(options.version, home, account)
  const dataDirectory = resolve(options.dataDirectory ?? join(home, 'data'))
  await prepareDataDirectory(options, binaries, dataDirectory, account)
  return { account, home, binaries, dataDirectory, port: options.port ?? (await freePort()) }
}

async function reachableBinaries(
  version: EmbeddedPostgresVersion,
  home: string,
  account: ServerAccount | undefined,
): Promise<ServerBinaries> {
  const installed = await findServerBinaries(version)
  if (await canReach(dirname(installed.postgres), account)) return installed
  const copy = join(home, 'binaries')
  await copyTree(installed.root, copy)
  return serverBinariesIn(copy)
}

async function prepareDataDirectory(
  options: EmbeddedPostgresOptions,
  binaries: ServerBinaries,
  dataDirectory: string,
  account: ServerAccount | undefined,
): Promise<void> {
  const found = await dataDirectoryVersion(options.standbyOf?.dataDirectory ?? dataDirectory)
  if (found !== undefined && found !== options.version) throw otherVersion(dataDirectory, found, options.version)
  if (options.standbyOf !== undefined) await copyPrimary(options.standbyOf, dataDirectory, account)
  else if (found === undefined) await initialise(options, binaries, dataDirectory, account)
  if (!(await canReach(dataDirectory, account))) throw outOfReach(dataDirectory)
  await appendFile(join(dataDirectory, 'postgresql.conf'), configurationLines(options.settings ?? {}))
}

async function dataDirectoryVersion(dataDirectory: string): Promise<string | undefined> {
  const text = await readFile(join(dataDirectory, 'PG_VERSION'), 'utf8').catch(() => undefined)
  return text?.trim()
}

async function initialise(
  options: EmbeddedPostgresOptions,
  binaries: ServerBinaries,
  dataDirectory: string,
  account: ServerAccount | undefined,
): Promise<void> {
  await refuseForeignFiles(dataDirectory)
  await makePrivateDirectory(dataDirectory, account)
  if (!(await canReach(dataDirectory, account))) throw outOfReach(dataDirectory)
  const flags = ['--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync']
  try {
    await promisify(execFile)(
      binaries.initdb,
      ['-D', dataDirectory, '-U', options.superuser ?? 'postgres', ...flags],
      processOptions(account),
    )
  } catch (error) {
    throw new EmbeddedPostgresError(
      'embedded_postgres_init_failed',
      `initdb of PostgreSQL ${options.version} failed in ${dataDirectory}: ${String(error)}`,
      { cause: error },
    )
  }
}

/** `cp -a` keeps the owner of the files. The copy lacks nothing: a stopped server has written all of its data out. */
async function copyPrimary(
  primary: EmbeddedPostgres,
  dataDirectory: string,
  account: ServerAccount | undefined,
): Promise<void> {
  await refuseForeignFiles(dataDirectory)
  await makePrivateDirectory(dataDirectory, account)
  await primary.stop()
  try {
    await promisify(execFile)('cp', ['-a', `${primary.dataDirectory}/.`, dataDirectory])
  } finally {
    await primary.start()
  }
  const connection = configurationLines({ primary_conninfo: primary.url, hot_standby: 'on' })
  await appendFile(join(dataDirectory, 'postgresql.conf'), connection)
  await makeServerFile(join(dataDirectory, 'standby.signal'), account)
}

/** Nothing of the user's is chowned or overwritten. */
async function refuseForeignFiles(dataDirectory: string): Promise<void> {
  const entries = await readdir(dataDirectory).catch(() => [])
  if (entries.length === 0) return
  throw new EmbeddedPostgresError(
    'embedded_postgres_data_directory',
    `Expected an empty directory or a PostgreSQL data directory at ${dataDirectory}, found ${entries.length} other ` +
      `entries (${entries.slice(0, 3).join(', ')}). Name another directory.`,
  )
}

function configurationLines(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`)
    .join('')
}

function otherVersion(dataDirectory: string, found: string, expected: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'embedded_postgres_data_directory',
    `Expected data of PostgreSQL ${expected} at ${dataDirectory}, found data of ${found}. ` +
      `Ask for version ${found}, or name another directory.`,
  )
}

function outOfReach(dataDirectory: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'embedded_postgres_data_directory',
    `PostgreSQL refuses to run as root, so it runs as nobody, who cannot enter ${dataDirectory}. ` +
      'Name a directory below one that everybody may enter, or run this as another user.',
  )
}
