import type { TestProject } from 'vitest/node'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../src/testing/embedded-postgres.ts'
import { SHARED_CLUSTER_SETTINGS } from './support/cluster-settings.ts'
import { prepareServer } from './support/server.ts'
import { testVersions } from './support/versions.ts'

/**
 * Provides the PostgreSQL servers of one test run: those of TRUNKLINE_TEST_URL (one URL, or several with commas) if it
 * is set, else one embedded server for each version of TRUNKLINE_TEST_VERSIONS (default `12,18`).
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env['TRUNKLINE_TEST_URL']
  const embedded = given === undefined ? await startEmbeddedServers() : []
  const urls = given === undefined ? embedded.map((server) => server.url) : given.split(',').map((url) => url.trim())
  const servers = await Promise.all(urls.map(prepareServer))
  project.provide('testServers', servers)
  return async () => {
    await Promise.all(embedded.map((server) => server.dispose()))
  }
}

async function startEmbeddedServers(): Promise<EmbeddedPostgres[]> {
  return Promise.all(
    testVersions().map((version) => startEmbeddedPostgres({ version, settings: SHARED_CLUSTER_SETTINGS })),
  )
}
