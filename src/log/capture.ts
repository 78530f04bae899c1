import { TrunklineError } from '../core/index.ts'
import {
  isLockContention,
  lockTimeoutMs,
  type LockRetryOptions,
  type Queryable,
  quoteIdentifier,
  retryWhileLocked,
  sqlStateOf,
  toTrunklineError,
} from '../postgres/index.ts'

/** How a table is captured. Calling again with other options changes the capture. */
export interface CaptureOptions {
  /**
   * `full` (default): old and new images, for relays, shapes and everything else. `keys`: key and operation only, for
   * caches and mirrors: no copy of the row in the log, which makes wide rows cheaper to write.
   */
  readonly rows?: 'full' | 'keys' | undefined
  /** Columns whose values never enter the log. Default none. Makes a write dearer: the columns are looked up each time. */
  readonly exclude?: readonly string[] | undefined
  /**
   * SQL over the table's columns, as after WHERE: rows for which it does not hold are not captured. Default all rows.
   * Functions and operators that are not PostgreSQL's own need their schema's name.
   */
  readonly where?: string | undefined
  /**
   * Who is told of a commit: `elided` notifies only when a reader sleeps, `always` in every transaction, `off` never (for
   * PREPARE TRANSACTION). Default: as the installation, see `set_wake` in SQL.
   */
  readonly wake?: 'elided' | 'always' | 'off' | undefined
}

/** How long to go on trying while locks are held, 30,000 ms by default, and a signal that ends it early. */
export type CaptureLockOptions = LockRetryOptions

/**
 * Installs the triggers that write a table's changes to the log. Idempotent: what stands already takes no lock. A table
 * is written as in SQL; without a schema it is looked up in public.
 *
 * @returns the topic's id.
 * @throws InvalidInputError `unknown_table`, `not_a_table`, `unknown_column`, `invalid_argument`, `invalid_filter`,
 * `no_privilege`; TrunklineError `table_locked`, retryable, with the process ids that hold the table.
 */
export async function captureTable(
  db: Queryable,
  schema: string,
  table: string,
  options: CaptureOptions & CaptureLockOptions = {},
): Promise<string> {
  const { rows = 'full', exclude = [], where, wake } = options
  const call = `${quoteIdentifier(schema)}.capture($1, $2, $3::text[], $4, $5)::text`
  const topic = await underLockTimeout(db, { schema, table, doing: `Capturing ${table}`, options }, call, [
    table,
    rows,
    exclude,
    where ?? null,
    wake ?? null,
  ])
  return String(topic)
}

/**
 * Removes the triggers of a table. What of it is in the log stays until rotation.
 *
 * @returns false when it was not captured.
 * @throws InvalidInputError `unknown_table`, `no_privilege`; TrunklineError `table_locked` as `captureTable`.
 */
export async function releaseTable(
  db: Queryable,
  schema: string,
  table: string,
  options: CaptureLockOptions = {},
): Promise<boolean> {
  const call = `${quoteIdentifier(schema)}.release($1)`
  return (await underLockTimeout(db, { schema, table, doing: `Releasing ${table}`, options }, call, [table])) === true
}

interface Task {
  readonly schema: string
  readonly table: string
  readonly doing: string
  readonly options: CaptureLockOptions
}

/** One statement, so that it also works on a pool and through a pooler: the setting ends with it. */
async function underLockTimeout(db: Queryable, task: Task, call: string, values: unknown[]): Promise<unknown> {
  const text = `select ${call} as result
    from (select pg_catalog.set_config('lock_timeout', '${lockTimeoutMs}ms', true) offset 0) as setting`
  try {
    return await retryWhileLocked(async () => {
      const { rows } = await db.query<{ result: unknown }>(text, values)
      return rows[0]?.result
    }, task.options)
  } catch (error) {
    if (isLockContention(error)) throw await tableLocked(db, task, error)
    if (sqlStateOf(error) === '3F000' || sqlStateOf(error) === '42883') throw notInstalled(task, error)
    throw toTrunklineError(error, task.doing)
  }
}

/**
 * Who holds a lock on the table or one of its partitions. A prepared transaction has no process id; the lock on its own
 * transaction id tells which one it is.
 */
const holdersQuery = `
  with recursive tree as (
    select pg_catalog.to_regclass($1)::oid as relation
    union
    select i.inhrelid from tree join pg_catalog.pg_inherits as i on i.inhparent = tree.relation
  )
  select distinct l.pid, p.gid
  from tree
  join pg_catalog.pg_locks as l on l.locktype = 'relation' and l.relation = tree.relation
    and l.database = (select d.oid from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database())
  left join pg_catalog.pg_locks as x on l.pid is null and x.locktype = 'transactionid' and x.pid is null
    and x.virtualtransaction = l.virtualtransaction
  left join pg_catalog.pg_prepared_xacts as p on p.transaction = x.transactionid
  where l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
  order by l.pid, p.gid`

async function tableLocked(db: Queryable, { table, doing }: Task, cause: unknown): Promise<TrunklineError> {
  const name = table.includes('.') ? table : `public.${table}`
  const holders = await db.query<{ pid: number | null; gid: string | null }>(holdersQuery, [name]).then(
    ({ rows }) => rows,
    () => [],
  )
  const pids = holders.flatMap(({ pid }) => pid ?? [])
  const prepared = holders.flatMap(({ gid }) => gid ?? [])
  const named = [
    ...(pids.length > 0 ? [`the backends ${pids.join(', ')}`] : []),
    ...prepared.map((gid) => `the prepared transaction '${gid}'`),
  ]
  const found = named.length > 0 ? `held by ${named.join(' and ')}` : 'held by others'
  return new TrunklineError(`${doing}: the table is ${found}, and no attempt got its lock.`, {
    code: 'table_locked',
    retryable: true,
    hint: 'End long transactions on it (select * from pg_stat_activity where pid = …), then try again.',
    details: { table, pids, prepared },
    cause,
  })
}

function notInstalled({ schema, doing }: Task, cause: unknown): TrunklineError {
  return new TrunklineError(`${doing}: schema "${schema}" has no trunkline.`, {
    code: 'schema_missing',
    hint: 'Run: trunkline migrate (or call migrate()) as the owner of the schema.',
    details: { schema },
    cause,
  })
}
