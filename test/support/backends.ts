import type pg from 'pg'
import type { TestDatabase } from './database.ts'
import { eventually } from './eventually.ts'

/** A condition on rows of pg_stat_activity; `$1` and on are its values. */
export interface BackendFilter {
  /** SQL over the columns of pg_stat_activity, for example `application_name = $1`. */
  readonly where: string
  readonly values?: readonly unknown[]
}

/** The process id of a connection's backend, to be blocked, watched or terminated. */
export async function backendPid(client: pg.ClientBase): Promise<number> {
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  const pid = rows[0]?.pid
  if (pid === undefined) throw new Error('Expected one row from pg_backend_pid(), found none.')
  return pid
}

/** Process ids of the backends of this database that match, without the one that asks. */
export async function findBackends(database: TestDatabase, { where, values = [] }: BackendFilter): Promise<number[]> {
  const rows = await database.adminQuery<{ pid: number }>(
    `select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and (${where})`,
    values,
  )
  return rows.map((row) => row.pid)
}

/** Terminates the backends that match and returns their process ids; they are gone when it resolves. */
export async function terminateBackends(database: TestDatabase, filter: BackendFilter): Promise<number[]> {
  const pids = await findBackends(database, filter)
  await database.adminQuery('select pg_terminate_backend(pid) from unnest($1::integer[]) as pid', [pids])
  await eventually(async () => (await remaining(database, pids)) === 0, { what: `backends ${pids.join()} are gone` })
  return pids
}

/** Resolves when a backend waits for a lock that another one holds. */
export async function untilBlocked(database: TestDatabase, pid: number): Promise<void> {
  await eventually(
    async () => {
      const rows = await database.adminQuery<{ blocked: boolean }>(
        'select cardinality(pg_blocking_pids($1)) > 0 as blocked',
        [pid],
      )
      return rows[0]?.blocked
    },
    { what: `backend ${pid} is blocked` },
  )
}

/** Resolves with their process ids when as many backends match as expected (default at least one). */
export async function untilBackends(
  database: TestDatabase,
  filter: BackendFilter,
  isExpected: (count: number) => boolean = (count) => count > 0,
): Promise<number[]> {
  let pids: number[] = []
  await eventually(
    async () => {
      pids = await findBackends(database, filter)
      return isExpected(pids.length)
    },
    { what: `the expected number of backends has ${filter.where}` },
  )
  return pids
}

async function remaining(database: TestDatabase, pids: readonly number[]): Promise<number> {
  const rows = await database.adminQuery('select from pg_stat_activity where pid = any($1)', [pids])
  return rows.length
}
