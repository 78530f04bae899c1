import pg from 'pg'
import { describe, inject } from 'vitest'
import type { EmbeddedPostgresVersion } from '../../src/testing/embedded-postgres.ts'
import { testVersions } from './versions.ts'

/** A PostgreSQL server that tests make databases on. */
export interface TestServer {
  /** Major version, for example `12`. */
  readonly version: string
  /** Connects a superuser to a maintenance database. */
  readonly url: string
}

declare module 'vitest' {
  interface ProvidedContext {
    /** Set by test/global-setup.ts. */
    testServers: TestServer[]
  }
}

/** Owns the databases of the tests; no superuser, like the role that runs migrations in production. */
export const OWNER_ROLE = 'app_owner'
/** An application's role: may log in, owns nothing, and is granted nothing. */
export const USER_ROLE = 'app_user'

/** Runs a suite once on every server of the run. */
export function describeEachPostgres(name: string, suite: (server: TestServer) => void): void {
  for (const server of inject('testServers')) describe(`${name} (PostgreSQL ${server.version})`, () => suite(server))
}

/** Runs a suite once for every version, for tests that start clusters of their own. */
export function describeEachVersion(name: string, suite: (version: EmbeddedPostgresVersion) => void): void {
  for (const version of testVersions()) describe(`${name} (PostgreSQL ${version})`, () => suite(version))
}

/** Asks a server for its version and makes the roles of the tests; harmless when they exist. */
export async function prepareServer(url: string): Promise<TestServer> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (const role of [OWNER_ROLE, USER_ROLE]) await client.query(createRoleSql(role))
    const { rows } = await client.query<{ version: number }>(
      "select current_setting('server_version_num')::integer / 10000 as version",
    )
    return { version: String(rows[0]?.version), url }
  } finally {
    await client.end()
  }
}

/** The password is the name; servers that trust local users do not ask for it. */
function createRoleSql(role: string): string {
  return `do $$
    begin
      create role ${role} login password '${role}';
    exception when duplicate_object or unique_violation then null;
    end
  $$`
}
