import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { backendPid, describeEachPostgres, lacksPgBouncer, startPgBouncer, useDatabase } from './index.ts'

describe.skipIf(lacksPgBouncer())('PgBouncer', () => {
  describeEachPostgres('in transaction mode', (server) => {
    const database = useDatabase(server)

    test('gives one server connection to many clients, one transaction at a time', async () => {
      await using pooler = await startPgBouncer(database(), { poolSize: 1 })
      const clients = [new pg.Client(pooler.url), new pg.Client(pooler.url)]
      await Promise.all(clients.map((client) => client.connect()))
      const pids = await Promise.all(clients.map(backendPid))
      expect(new Set(pids).size).toBe(1)
      await Promise.all(clients.map((client) => client.end()))
    })
  })
})
