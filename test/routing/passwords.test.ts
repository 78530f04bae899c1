import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { sql } from 'slonik'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import type { EmbeddedPostgres } from '../../src/testing/embedded-postgres.ts'
import { codeOf } from '../cache/cached.ts'
import { install } from '../log/captured.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { type Fleet, portOf, startFleet, untilServing } from './fleet.ts'

const password = 'o wörd+/?#%:@'

describeEachVersion('servers that ask for a password (SCRAM)', (version) => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    await install(fleet.database.url)
    await fleet.database.query("select trunkline.capture('item')")
    await fleet.database.adminQuery(`
      set password_encryption = 'scram-sha-256';
      alter role app_owner password '${password}'`)
    await fleet.caughtUp()
    for (const { postgres } of [fleet.primary, ...fleet.standbys]) await askForPassword(postgres)
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  const withPassword = (url: string, text = password): string => {
    const other = new URL(url)
    other.password = encodeURIComponent(text)
    return other.href
  }

  test('by URL, and by a pool whose password is an option of its own: transactions, pools, slonik, the change log', async () => {
    const { hostname, port, pathname, username } = new URL(fleet.database.url)
    const byParts = new pg.Pool({
      host: hostname,
      port: Number(port),
      database: pathname.slice(1),
      user: username,
      password,
    })
    const byUrl = new pg.Pool({ connectionString: withPassword(fleet.database.url) })
    const replicaUrls = fleet.replicaUrls.map((url) => withPassword(url))
    const primaryPort = fleet.primary.postgres.port
    const replicaPort = fleet.standbys[0]!.postgres.port
    for (const given of [{ url: withPassword(fleet.database.url) }, { pool: byParts }, { pool: byUrl }]) {
      await using trunkline = createTrunkline({ ...given, replicaUrls, routing: { healthIntervalMs: 50 } })
      await trunkline.start()
      await untilServing(trunkline, 1)
      // The first statement opens the connection, BEGIN and all.
      expect(await trunkline.write(portOf)).toBe(primaryPort)
      expect(await trunkline.read(portOf)).toBe(replicaPort)
      const { read, write } = trunkline.routing.pools()
      expect([await portOf(read), await portOf(write)]).toEqual([replicaPort, primaryPort])
      const items = await trunkline.cache<{ id: number }>('item')
      expect(items.size).toBe(0)
      if (given.pool === byParts) continue
      await using db = await trunkline.routing.slonik()
      expect(await db.read(async (tx) => tx.oneFirst(sql.unsafe`select inet_server_port()`))).toBe(replicaPort)
    }
    // The primary stands in for the replica, with connections of our own that cannot write.
    await using alone = createTrunkline({ pool: byParts, replicaUrls: [] })
    expect(await portOf(alone.routing.pools().read)).toBe(primaryPort)
    await byParts.end()
    await byUrl.end()
  })

  test('a wrong one is told, and is not in the error', async () => {
    const url = withPassword(fleet.database.url, 'wrong secret')
    await using trunkline = createTrunkline({ url, replicaUrls: [], routing: { acquireTimeoutMs: 500 } })
    const error = await trunkline.write(portOf).catch((reason: unknown) => reason as Error)
    expect(await codeOf(Promise.reject(error as Error))).toMatch(/^(no_primary|connection_refused)$/)
    expect((error as Error).message).toMatch(/password authentication failed/)
    expect(JSON.stringify([String(error), error])).not.toContain('wrong secret')
    await eventually(() => trunkline.routing.status().nodes[0]?.reason?.includes('password') === true)
  })
})

/** Everybody but the superuser of the tests needs the password from now on. */
async function askForPassword({ dataDirectory, url }: EmbeddedPostgres): Promise<void> {
  const file = join(dataDirectory, 'pg_hba.conf')
  await writeFile(file, `host all app_owner 127.0.0.1/32 scram-sha-256\n${await readFile(file, 'utf8')}`)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query('select pg_reload_conf()')
  await client.end()
}
