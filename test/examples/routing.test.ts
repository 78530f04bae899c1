import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Fleet, startFleet } from '../routing/fleet.ts'
import { describeEachVersion } from '../support/index.ts'

describeEachVersion('examples/routing-*.ts', (version) => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  async function run(name: string, replicaUrls: readonly string[]): Promise<string> {
    const file = fileURLToPath(new URL(`../../examples/${name}.ts`, import.meta.url))
    const { stdout } = await promisify(execFile)(process.execPath, [file], {
      env: { ...process.env, DATABASE_URL: fleet.database.url, TRUNKLINE_REPLICA_URLS: replicaUrls.join(',') },
      timeout: 20_000,
    })
    return stdout
  }

  test.each(['routing-kysely', 'routing-drizzle'])('%s', { timeout: 60_000 }, async (name) => {
    for (const replicaUrls of [fleet.replicaUrls, []]) {
      const output = await run(name, replicaUrls)
      expect(output).toContain('read back: leave it with the neighbour')
      expect(output).toContain('refused: 25006')
      expect(output).toContain('then: ring twice')
      // Without a replica the primary serves the reads, and it is said why.
      const read = replicaUrls.length === 0 ? 'read on primary, no-replicas' : 'read on replica, token'
      expect(output).toContain(read)
    }
  })
})
