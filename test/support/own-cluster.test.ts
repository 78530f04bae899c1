import pg from 'pg'
import { expect, test } from 'vitest'
import { createDatabase, createStandby, describeEachVersion, eventually, ownCluster } from './index.ts'

describeEachVersion('a cluster of its own', (version) => {
  test('keeps committed rows over an immediate stop, on the same port', async () => {
    await using cluster = await ownCluster(version)
    const database = await createDatabase(cluster.server)
    await database.query('create table kept as select 1 as id')
    const client = await database.connect()
    await cluster.postgres.restart('immediate')
    await expect(client.query('select 1')).rejects.toThrow()
    expect(await eventually(() => database.query('select id from kept'))).toEqual([{ id: 1 }])
  })

  test('has a streaming standby that lags, catches up and is promoted', async () => {
    await using cluster = await ownCluster(version)
    const database = await createDatabase(cluster.server)
    await database.query('create table counted (id integer)')
    await using standby = await createStandby(cluster)
    const replica = new pg.Client(urlOn(standby.server.url, database.name))
    await replica.connect()
    const count = async (): Promise<unknown> => (await replica.query('select count(*)::integer from counted')).rows[0]

    await standby.pauseReplay()
    await eventually(() => database.query('insert into counted values (1) returning id'))
    expect(await count()).toEqual({ count: 0 })
    await standby.resumeReplay()
    await standby.untilCaughtUp()
    expect(await count()).toEqual({ count: 1 })

    await expect(replica.query('insert into counted values (2)')).rejects.toThrow(/read-only/)
    await standby.promote()
    await replica.query('insert into counted values (2)')
    expect(await count()).toEqual({ count: 2 })
    await replica.end()
  })
})

function urlOn(serverUrl: string, databaseName: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${databaseName}`
  return url.href
}
