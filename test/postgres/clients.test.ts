import pg from 'pg'
import { expect, test } from 'vitest'
import { guardAgainstHugeValues, withClient } from '../../src/postgres/index.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

describeEachPostgres('a client', (server) => {
  const database = useDatabase(server)

  test('a value that JavaScript cannot hold fails its statement, not the process', { timeout: 60_000 }, async () => {
    const client = await database().connect()
    guardAgainstHugeValues(client)
    guardAgainstHugeValues(client)
    expect((await client.query("select repeat('x', 10000000) as x")).rows[0]).toHaveProperty('x.length', 10_000_000)
    await expect(client.query("select repeat('x', 540 * 1024 * 1024)")).rejects.toMatchObject({
      code: 'value_too_large',
    })
  })

  test('a pool that is exhausted is told in time, and gets its connection back', { timeout: 30_000 }, async () => {
    const pool = new pg.Pool({ connectionString: database().url, max: 1 })
    // The database is dropped while it ends.
    pool.on('error', () => undefined)
    const held = await pool.connect()
    const late = withClient(pool, async () => 'never', { freeTimeoutMs: 200 })
    await expect(late).rejects.toMatchObject({ code: 'pool_exhausted', details: { total: 1, idle: 0 } })
    held.release()
    expect(await withClient(pool, async () => 'free again')).toBe('free again')
    await pool.end()
  })
})
