import type { QueryArrayResult } from 'pg'
import { isLockContention, parseSnapshot, quoteIdentifier, type Snapshot } from '../postgres/index.ts'
import type { Session } from './session.ts'

/** What every round learns besides the changes. */
export interface RoundHead {
  readonly snapshot: Snapshot
  /** Highest xid whose rows were removed from the log. */
  readonly truncatedXid: bigint
  /** What a position must agree with to speak of this log; known where the connection may have changed since. */
  readonly identity: string | undefined
}

/** One statement of a round. */
export interface RoundStatement {
  /** Unique; another text needs another name. */
  readonly name: string
  readonly text: string
  /** `$1` to `$3` as `stepParameters` says; `$4`, where used, the number of changes beyond which it reads a whole table. */
  readonly values: readonly [bigint, bigint, readonly bigint[], number]
  /** Expected to find less rows than this, and gives no more: from here on the result may be cut short. */
  readonly rowsMax?: number | undefined
  /** A table that it reads besides the log. */
  readonly lock?: string | undefined
  /** The oid of that table, if it has no children: its file tells whether it was truncated. */
  readonly oid?: string | undefined
}

export interface RoundResult {
  readonly head: RoundHead
  /** Rows of each statement. */
  readonly results: readonly (readonly unknown[][])[]
}

/** The log may never have been analyzed, and a plan made when it was tiny must not meet it when it is not. */
const planner = [
  'enable_seqscan = off',
  'enable_bitmapscan = off',
  'enable_hashjoin = off',
  'enable_mergejoin = off',
  'jit = off',
  'max_parallel_workers_per_gather = 0',
]

/**
 * Longest wait for a table that somebody holds in ACCESS EXCLUSIVE mode, in milliseconds. Well below deadlock_timeout: a
 * round that waits for one table holds others, and a migration that alters both must never be the one to be cancelled.
 */
export const lockTimeoutMs = 200

/** A statement whose transactions in progress lie within this many xids of its xmax reads one range of the index. */
const nearXids = 1_000n

/** Where to read from: `$1` lowest xid of interest, `$2` xmax, `$3` transactions in progress. */
export function stepParameters(since: Snapshot): readonly [bigint, bigint, readonly bigint[]] {
  const lowest = since.xip.reduce((least, xid) => (xid < least ? xid : least), since.xmax)
  return [lowest, since.xmax, since.xip]
}

/** False when an old open transaction would make one range long. */
export function isNear(since: Snapshot): boolean {
  return since.xmax - stepParameters(since)[0] <= nearXids
}

/**
 * Runs the statements of all followers in one snapshot and one round trip, so that several tables step ahead together.
 * Tables are locked (ACCESS SHARE) before the snapshot is taken: TRUNCATE and what rewrites a table are not MVCC, and one
 * that commits between snapshot and look would make the table seem empty. A single quick statement goes without: either of
 * them gives the table another file, so a look that finds the file of the look before is as good as one under the lock.
 *
 * On a direct connection the statements are prepared once (planning costs more than running them), several run in one
 * implicit REPEATABLE READ transaction, and a single one carries the head in itself. Through a pooler they are sent in full.
 */
export class RoundRunner {
  readonly #schema: string
  readonly #session: Session
  #isDirect = false
  readonly #prepared = new Set<string>()
  /** By the name of a quick statement, the file of its table when it last ran. */
  readonly #files = new Map<string, string>()

  constructor(schema: string, session: Session) {
    this.#schema = schema
    this.#session = session
  }

  /** A new connection: nothing is prepared on it, and it may go through a pooler. */
  reset(): void {
    this.#isDirect = false
    this.#prepared.clear()
    this.#files.clear()
  }

  /** The session is proven to be one backend: settings and prepared statements stay. */
  async useDirect(): Promise<void> {
    if (this.#isDirect) return
    const settings = [
      ...planner,
      `lock_timeout = ${lockTimeoutMs}`,
      'plan_cache_mode = force_generic_plan',
      "default_transaction_isolation = 'repeatable read'",
    ]
    await this.#session.query(settings.map((setting) => `set ${setting}`).join('; '))
    this.#isDirect = true
  }

  async run(statements: readonly RoundStatement[]): Promise<RoundResult> {
    const [first] = statements
    if (!this.#isDirect) return this.#runInFull(statements)
    return statements.length === 1 && first?.rowsMax !== undefined ? this.#runOne(first) : this.#runPrepared(statements)
  }

  /** True when somebody holds the table of the statement so that it cannot be read now. */
  async isLocked({ lock }: RoundStatement): Promise<boolean> {
    if (lock === undefined) return false
    try {
      await this.#session.query(`begin; lock table ${lock} in access share mode nowait; commit`)
      return false
    } catch (error) {
      if (this.#session.isConnected) await this.#session.query('rollback')
      if (isLockContention(error)) return true
      throw error
    }
  }

  /** Drops what is prepared under names that are not used any more. */
  async forget(name: string): Promise<void> {
    for (const prepared of [...this.#prepared].filter((one) => one.startsWith(`${name} `))) {
      this.#prepared.delete(prepared)
      this.#files.delete(prepared)
      if (this.#session.isConnected) await this.#session.query(`deallocate ${quoteIdentifier(prepared)}`)
    }
  }

  /** The head as columns of the statement: the quickest way from a notification to the changes. */
  async #runOne(statement: RoundStatement): Promise<RoundResult> {
    const file = statement.oid === undefined ? 'null' : `pg_relation_filenode(${statement.oid})`
    const one = {
      name: `${statement.name} one`,
      text: `select head.*, ${file}::text, step.* from (${headStatement(this.#schema, false)}) as head left join (${statement.text}) as step on true`,
      values: statement.values,
    }
    await this.#prepare(one)
    const known = this.#files.get(one.name)
    let rows = known === undefined ? [] : await this.#lastOf([executed(one)])
    if (known === undefined || rows[0]?.[headWidth - 1] !== known) {
      rows = await this.#lastOf([...locked([statement]), executed(one)])
      const found = rows[0]?.[headWidth - 1]
      if (typeof found === 'string') this.#files.set(one.name, found)
    }
    // Without a change the outer join leaves one row of nulls.
    const steps = rows.filter((row) => row[headWidth] !== null)
    return { head: parseHead(rows[0]?.slice(0, headWidth - 1)), results: [steps.map((row) => row.slice(headWidth))] }
  }

  async #lastOf(texts: readonly string[]): Promise<readonly unknown[][]> {
    return (await this.#session.query(texts.join(';\n'))).at(-1)?.rows ?? []
  }

  async #runPrepared(statements: readonly RoundStatement[]): Promise<RoundResult> {
    const head = { name: 'trunkline_head', text: headStatement(this.#schema, false), values: noValues }
    const all = [head, ...statements].map(({ name, text, values }) => ({ name: `${name} many`, text, values }))
    for (const statement of all) await this.#prepare(statement)
    const locks = locked(statements)
    const results = await this.#session.query([...locks, ...all.map(executed)].join(';\n'))
    return collected(results, locks.length, statements.length)
  }

  async #runInFull(statements: readonly RoundStatement[]): Promise<RoundResult> {
    const settings = [...planner, `lock_timeout = ${lockTimeoutMs}`].map((setting) => `set local ${setting}`)
    const before = ['begin isolation level repeatable read read only', ...settings, ...locked(statements)]
    const texts = [...before, headStatement(this.#schema, true), ...statements.map(filledIn), 'commit']
    try {
      return collected(await this.#session.query(texts.join(';\n')), before.length, statements.length)
    } catch (error) {
      if (this.#session.isConnected) await this.#session.query('rollback')
      throw error
    }
  }

  async #prepare({ name, text }: RoundStatement): Promise<void> {
    if (this.#prepared.has(name)) return
    await this.#session.query(`prepare ${quoteIdentifier(name)} (bigint, bigint, bigint[], bigint) as ${text}`)
    this.#prepared.add(name)
  }
}

const noValues = [0n, 0n, [], 0] as const
/** Columns in front of a single statement: those of the head, and the table's file. */
const headWidth = 3

/** Tells which snapshot a transaction has, and how far back the log reaches. */
export function headStatement(schema: string, withIdentity: boolean): string {
  const s = quoteIdentifier(schema)
  const identity = withIdentity ? `, ${s}.log_identity()` : ''
  return `select txid_current_snapshot()::text as snapshot, (select i.truncated_xid::text from ${s}.installation as i) as truncated_xid${identity}`
}

export function parseHead(row: readonly unknown[] | undefined): RoundHead {
  const [snapshot, truncatedXid, identity] = row as [string, string, string | undefined]
  return { snapshot: parseSnapshot(snapshot), truncatedXid: BigInt(truncatedXid), identity }
}

function collected(results: readonly QueryArrayResult<unknown[]>[], head: number, count: number): RoundResult {
  return {
    head: parseHead(results[head]?.rows[0]),
    results: results.slice(head + 1, head + 1 + count).map((result) => result.rows),
  }
}

function locked(statements: readonly RoundStatement[]): string[] {
  const tables = new Set(statements.flatMap(({ lock }) => lock ?? []))
  return tables.size === 0 ? [] : [`lock table ${[...tables].join(', ')} in access share mode`]
}

function executed({ name, values: [lowest, xmax, xip, many] }: RoundStatement): string {
  return `execute ${quoteIdentifier(name)}(${lowest}, ${xmax}, '{${xip.join(',')}}', ${many})`
}

function filledIn({ text, values: [lowest, xmax, xip, many] }: RoundStatement): string {
  // Only the ranges of the log mention the parameters, as changedRows (table-statements.ts) wrote them, and the structure.
  return text
    .replaceAll('l.xid >= $1', `l.xid >= ${lowest}`)
    .replaceAll('l.xid >= $2', `l.xid >= ${xmax}`)
    .replaceAll('l.xid = any ($3)', `l.xid = any ('{${xip.join(',')}}'::bigint[])`)
    .replaceAll('unnest($3)', `unnest('{${xip.join(',')}}'::bigint[])`)
    .replaceAll('offset $4)', `offset ${many})`)
    .replaceAll('/ 8192 <= $4 else', `/ 8192 <= ${many} else`)
}

/**
 * True when rows that were not visible in `since` may have been removed from the log: it no longer reaches back that far.
 * A member of `xip` that is still open cannot have been removed: its lock keeps the table from being emptied.
 */
export function isOutOfReach(since: Snapshot, head: RoundHead): boolean {
  if (head.truncatedXid >= since.xmax) return true
  return since.xip.some((xid) => xid <= head.truncatedXid && !head.snapshot.xip.includes(xid))
}
