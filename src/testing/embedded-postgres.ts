import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type EmbeddedPostgres, type EmbeddedPostgresOptions } from './embedded/contract.ts'
import { prepare } from './embedded/preparation.ts'
import { type ServerAccount, canReach, makePrivateDirectory, serverAccount } from './embedded/server-account.ts'
import { Server } from './embedded/server.ts'

export { type EmbeddedPostgresVersion } from './embedded/binaries.ts'
export {
  type ConnectionUrlOptions,
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  type StopMode,
} from './embedded/contract.ts'
export { EmbeddedPostgresError, type EmbeddedPostgresErrorCode } from './embedded/error.ts'

/**
 * Starts a real PostgreSQL server from binaries out of npm: no Docker, no root needed (as root it runs as `nobody`). It
 * listens on 127.0.0.1 only, trusts every local user, uses locale C and UTF-8, and takes about a second to come up. It
 * neither keeps this process alive nor outlives it.
 *
 * @throws EmbeddedPostgresError with a code and what to do.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const account = await serverAccount()
  const home = await makeHome(account)
  try {
    const server = new Server(options, await prepare(options, home, account))
    await server.start()
    return server
  } catch (error) {
    await rm(home, { recursive: true, force: true })
    throw error
  }
}

async function makeHome(account: ServerAccount | undefined): Promise<string> {
  const parent = (await canReach(tmpdir(), account)) ? tmpdir() : '/tmp'
  const home = await mkdtemp(join(parent, 'trunkline-pg-'))
  await makePrivateDirectory(home, account)
  return home
}
