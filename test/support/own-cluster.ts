import {
  type EmbeddedPostgres,
  type EmbeddedPostgresVersion,
  startEmbeddedPostgres,
} from '../../src/testing/embedded-postgres.ts'
import { TEST_CLUSTER_SETTINGS } from './cluster-settings.ts'
import { type TestServer, prepareServer } from './server.ts'

/** A cluster that one test has for itself: to hold transactions open, restart it, stop it, lag behind it. */
export interface OwnCluster extends AsyncDisposable {
  readonly postgres: EmbeddedPostgres
  /** For `createDatabase(cluster.server)`. */
  readonly server: TestServer
  /** Stops the cluster and removes its data. */
  dispose(): Promise<void>
}

/** Starts a cluster (about a second). Its transactions survive `stop('immediate')`, not a crash of the machine. */
export async function ownCluster(
  version: EmbeddedPostgresVersion,
  settings: Readonly<Record<string, string>> = {},
): Promise<OwnCluster> {
  const postgres = await startEmbeddedPostgres({
    version,
    settings: { ...TEST_CLUSTER_SETTINGS, ...DURABLE_SETTINGS, ...settings },
  })
  const server = await prepareServer(postgres.url)
  const dispose = (): Promise<void> => postgres.dispose()
  return { postgres, server, dispose, [Symbol.asyncDispose]: dispose }
}

/** A commit that was answered must be there after an immediate stop; without fsync that costs nothing here. */
const DURABLE_SETTINGS = { synchronous_commit: 'on', full_page_writes: 'on' }
