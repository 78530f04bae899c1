import pg from 'pg'
import { type EmbeddedPostgres, type EmbeddedPostgresVersion, startEmbeddedPostgres } from '../../src/testing/index.ts'

/** As in production: durable, with memory, and with checkpoints rare enough to stay out of a round of seconds. */
const settings: Readonly<Record<string, string>> = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  shared_buffers: '256MB',
  max_connections: '500',
  max_wal_size: '4GB',
  checkpoint_timeout: '30min',
}

/** Starts a server for one benchmark. */
export async function startServer(
  version: EmbeddedPostgresVersion,
  own: Readonly<Record<string, string>> = {},
): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ version, settings: { ...settings, ...own } })
}

/** Makes an empty database. */
export async function createDatabase(server: EmbeddedPostgres, name: string): Promise<string> {
  await withClient(server.url, (client) => client.query(`create database ${name} template template0`))
  return server.urlFor({ database: name })
}

/** Runs an action on a connection of its own. */
export async function withClient<Result>(url: string, action: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: url, application_name: 'bench' })
  await client.connect()
  try {
    return await action(client)
  } finally {
    await client.end()
  }
}
