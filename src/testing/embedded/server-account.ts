import { chown, copyFile, link, mkdir, readFile, readdir, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'

/** A user and group id that a server process runs under. */
export interface ServerAccount {
  readonly uid: number
  readonly gid: number
}

const NOBODY: ServerAccount = { uid: 65534, gid: 65534 }

/**
 * The account for servers that refuse to run as root (PostgreSQL, PgBouncer): `nobody` when this process is root,
 * otherwise nothing, which means our own. It has to stand in /etc/passwd: initdb looks its name up.
 */
export async function serverAccount(): Promise<ServerAccount | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '')
  const fields = passwd
    .split('\n')
    .find((line) => line.startsWith('nobody:'))
    ?.split(':')
  if (fields === undefined) return NOBODY
  return { uid: unsignedId(fields[2]), gid: unsignedId(fields[3]) }
}

/** macOS writes nobody's id as -2. */
function unsignedId(field: string | undefined): number {
  return Number(field) >>> 0
}

/** The environment must not change the server (LC_ALL, TZ, PGOPTIONS), nor a working directory it may not enter. */
export function processOptions(account: ServerAccount | undefined): {
  cwd: string
  env: NodeJS.ProcessEnv
  uid?: number
  gid?: number
} {
  return { cwd: '/', env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' }, ...account }
}

/** Makes a directory that the account owns and nobody else may enter, as PostgreSQL demands of its data directory. */
export async function makePrivateDirectory(path: string, account: ServerAccount | undefined): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  if (account !== undefined) await chown(path, account.uid, account.gid)
}

/** Makes a file that the account may read and write; configuration of a server, default empty. */
export async function makeServerFile(path: string, account: ServerAccount | undefined, text = ''): Promise<void> {
  await writeFile(path, text, { mode: 0o600 })
  if (account !== undefined) await chown(path, account.uid, account.gid)
}

/** Whether the account may enter every directory from the root down to this one. */
export async function canReach(directory: string, account: ServerAccount | undefined): Promise<boolean> {
  if (account === undefined) return true
  for (let path = resolve(directory); ; path = dirname(path)) {
    if (!(await canEnter(path, account))) return false
    if (path === dirname(path)) return true
  }
}

async function canEnter(directory: string, account: ServerAccount): Promise<boolean> {
  const { mode, uid, gid } = await stat(directory)
  if (uid === account.uid) return (mode & 0o100) !== 0
  if (gid === account.gid) return (mode & 0o010) !== 0
  return (mode & 0o001) !== 0
}

/**
 * Copies a tree of programs to where the account can reach it, for a checkout below a directory that only root may
 * enter. Files are hard links where both places share a file system, so it takes milliseconds and no space.
 */
export async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o755 })
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isDirectory()) await copyTree(source, target)
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target)
    else await link(source, target).catch(() => copyFile(source, target))
  }
}
