import { AssertionError } from 'node:assert'
import { expect, test } from 'vitest'
import { ProjectionError, type ProjectionOptions, upcaster } from '../../src/index.ts'
import { specifyProjection } from '../../src/testing/index.ts'
import { describeEachPostgres, terminateBackends, useDatabase } from '../support/index.ts'

type Added = { type: 'added'; payload: { n: number } }

const totals: ProjectionOptions<Added> = {
  name: 'totals',
  mode: 'async',
  tables: { totals: (table) => `create table ${table} (id text primary key, n int not null)` },
  handlers: {
    added: ({ aggregateId, payload }, { query, table }) =>
      query(`insert into ${table('totals')} as t values ($1, $2) on conflict (id) do update set n = t.n + excluded.n`, [
        aggregateId,
        payload.n,
      ]),
  },
}

describeEachPostgres('specifyProjection', (server) => {
  const database = useDatabase(server)
  const added = (n: number, stream?: string) => ({
    type: 'added',
    payload: { n },
    ...(stream === undefined ? {} : { stream }),
  })

  test('given events, then rows, and nothing stays', async () => {
    const old = upcaster({
      from: { type: 'put', schemaVersion: 1 },
      to: { type: 'added', schemaVersion: 2 },
      upcast: (n: number) => ({ n }),
    })
    const specification = specifyProjection(totals, { database: database().url, upcasters: [old] })
    await specification.given([]).expect({ totals: [] })
    await specification
      .given([added(1), added(5, 'sum-b'), { type: 'put', payload: 2 }, { type: 'other', payload: null }])
      .expect({
        totals: [
          { id: 'b', n: 5 },
          { id: '1', n: 3 },
        ],
      })
    await specification.given([added(1)]).expect({ totals: [{ n: 1 }] })
    // Without a schema version it has the newest form.
    const wrapped = upcaster({
      from: { type: 'added', schemaVersion: 1 },
      to: { type: 'added', schemaVersion: 2 },
      upcast: (n: number) => ({ n }),
    })
    await specifyProjection(totals, { database: database().url, upcasters: [wrapped] })
      .given([added(1), { type: 'added', schemaVersion: 1, payload: 2 }])
      .expect({ totals: [{ n: 3 }] })
    expect(await specification.given([added(4)]).rows()).toEqual({ totals: [{ id: '1', n: 4 }] })
    expect(await database().query(`select relname from pg_class where relname like 'totals%'`)).toEqual([])
  })

  test('what does not hold is told', async () => {
    const specification = specifyProjection(totals, { database: database().url })
    await expect(specification.given([added(1)]).expect({ totals: [{ n: 2 }] })).rejects.toBeInstanceOf(AssertionError)
    await expect(specification.given([added(1)]).expect({ totals: [] })).rejects.toThrow(
      /table totals: other rows than expected/,
    )
    await expect(specification.given([]).expect({ others: [] })).rejects.toThrow(/does not declare/)
    await expect(specification.given([{ type: 'added', payload: { n: 'x' } }]).rows()).rejects.toBeInstanceOf(
      ProjectionError,
    )
  })

  test('a connection that breaks is an error, and the process lives', async () => {
    const breaking: ProjectionOptions<Added> = {
      ...totals,
      handlers: {
        added: async (_event, { query }) => {
          const [row] = (await query<{ pid: number }>('select pg_backend_pid() as pid')).rows
          await terminateBackends(database(), { where: 'pid = $1', values: [row?.pid] })
        },
      },
    }
    await expect(
      specifyProjection(breaking, { database: database().url })
        .given([added(1), added(2)])
        .rows(),
    ).rejects.toThrow(/terminat|not queryable/)
  })
})
