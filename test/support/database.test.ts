import { expect, test } from 'vitest'
import {
  backendPid,
  createDatabase,
  describeEachPostgres,
  ensureTemplate,
  terminateBackends,
  untilBlocked,
  useDatabase,
} from './index.ts'

describeEachPostgres('a test database', (server) => {
  const database = useDatabase(server)

  test('belongs to a role that is no superuser', async () => {
    const [row] = await database().query<{ owner: string; superuser: boolean; version: number }>(
      `select pg_get_userbyid(datdba) as owner, current_setting('is_superuser')::boolean as superuser,
              current_setting('server_version_num')::integer / 10000 as version
         from pg_database where datname = current_database()`,
    )
    expect(row).toEqual({ owner: 'app_owner', superuser: false, version: Number(server.version) })
  })

  test('gives connections as owner, superuser and user', async () => {
    const names = []
    for (const role of ['owner', 'admin', 'user'] as const) {
      const client = await database().connect(role)
      names.push((await client.query<{ name: string }>('select current_user as name')).rows[0]?.name)
      await client.end()
    }
    expect(names).toEqual(['app_owner', new URL(server.url).username, 'app_user'])
  })

  test('is dropped with its open connections and prepared transactions', async () => {
    const other = await createDatabase(server)
    const client = await other.connect()
    await client.query("begin; create table held (id integer); prepare transaction 'held it'")
    await other.drop()
    await other.drop()
    const rows = await database().query('select from pg_database where datname = $1', [other.name])
    expect(rows).toHaveLength(0)
  })

  test('is a copy of a template that is prepared once', async () => {
    let prepared = 0
    const prepare = async (draft: { query(text: string): Promise<unknown> }): Promise<void> => {
      prepared += 1
      await draft.query('create table marker as select 1 as id')
    }
    const name = `template_${database().name}`
    await Promise.all([ensureTemplate(server, name, prepare), ensureTemplate(server, name, prepare)])
    await using copy = await createDatabase(server, { template: name })
    expect(await copy.query('select id from marker')).toEqual([{ id: 1 }])
    expect(prepared).toBe(1)
    await database().adminQuery(`drop database ${name}`)
  })

  test('tells when a backend is blocked, and terminates it', async () => {
    await database().query('create table contended (id integer)')
    const holder = await database().connect()
    const waiter = await database().connect()
    await holder.query('begin; lock table contended')
    const pid = await backendPid(waiter)
    const waiting = expect(waiter.query('select from contended')).rejects.toThrow(/terminat/)
    await untilBlocked(database(), pid)
    expect(await terminateBackends(database(), { where: 'pid = $1', values: [pid] })).toEqual([pid])
    await waiting
    await holder.query('rollback')
  })
})
