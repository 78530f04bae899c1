import { randomInt } from 'node:crypto'
import type pg from 'pg'
import type { QueryResultRow } from 'pg'
import { ConnectionError, messageOf, pause, TrunklineError } from '../core/index.ts'
import {
  type Queryable,
  quoteQualified,
  retryWhileLocked,
  type Snapshot,
  toTrunklineError,
  withClient,
} from '../postgres/index.ts'
import { ColumnParsers, UnreadableValue } from './column-parsers.ts'
import { CopyPace } from './copy-pace.ts'
import { otherLog } from './feed-errors.ts'
import {
  headStatement,
  isNear,
  lockTimeoutMs,
  parseHead,
  type RoundHead,
  type RoundStatement,
  stepParameters,
} from './round.ts'
import { roundTimeoutMs } from './session.ts'
import { describeTable, type TableDescription } from './table-description.ts'
import type { TableFollower } from './table-feed-contract.ts'
import { fewRows, type TableStatements, tableStatements } from './table-statements.ts'

/** How long a single row may take that is too wide to come with others, in milliseconds. */
const wideRowTimeoutMs = 60_000
/** How long a copy waits until the pool has a connection for it, in milliseconds. */
const freeTimeoutMs = 10_000
/** How long a first copy waits for a table that somebody holds, in milliseconds. */
const firstCopyLockMs = 30_000
/** How long an attempt at a fresh copy does; others may wait for it. */
const freshCopyLockMs = 1_000
/** A fleet that has to copy afresh at the same moment spreads over this time, in milliseconds. */
const copySpreadMs = 100

/**
 * A step of so many changes, and of so large a part of the rows, reads the whole table: sending a row that did not change
 * costs a fifth of looking one up that did.
 */
const manyChanges = 100
const manyShare = 1 / 5

/** Numbers the texts that are prepared under a name. */
let statementCount = 0

/** A follower and where it is: the snapshot that its visible (or staged) rows agree with. */
export class TableSubscription {
  readonly follower: TableFollower
  readonly #schema: string
  #table: TableDescription | undefined
  #statements: TableStatements | undefined
  #statementName = ''
  /** Undefined until the first copy, and while a fresh one is being made. */
  cursor: Snapshot | undefined
  /** The cursor one round ago. */
  previousCursor: Snapshot | undefined
  /** A fresh copy is staged and waits for the next round to bring it level. */
  hasStagedCopy = false
  /** When the last round that this follower took part in was begun, by performance.now(); 0: none yet. */
  lookedAt = 0
  isStale = false
  /** Others no longer wait for it: its copy failed or takes long, or its table has long been locked. */
  isGivenUp = false
  /** Since when somebody has held the table so that it cannot be read, by performance.now(). */
  lockedSince: number | undefined
  /** Steps in a row that failed right after a copy: the next copy would not help either. */
  stepFailures = 0
  /** Why, when there were several; whoever asks for freshness is told. */
  fault: Error | undefined
  /** Failed attempts to copy since the last that worked. */
  failures = 0
  copying: Promise<void> | undefined
  /** Settles when `copying` has worked or failed for the first time. */
  attempt: Promise<void> | undefined
  isClosed = false

  constructor(schema: string, follower: TableFollower) {
    this.#schema = schema
    this.follower = follower
  }

  get table(): TableDescription | undefined {
    return this.#table
  }

  /** Columns before the row's own in the result of `statement`. */
  get followPrefix(): number {
    return this.#statements?.followPrefix ?? 0
  }

  get statementName(): string {
    return this.#statementName
  }

  /** What brings it from its cursor to the next round's snapshot; undefined while it has none. */
  statement(expectsFew: boolean): RoundStatement | undefined {
    if (this.cursor === undefined || this.#statements === undefined) return undefined
    const isQuick = expectsFew && isNear(this.cursor)
    return {
      name: `${this.#statementName} ${isQuick ? 'few' : 'any'}`,
      text: isQuick ? this.#statements.followFew : this.#statements.follow,
      values: [...stepParameters(this.cursor), Math.max(manyChanges, Math.ceil(this.follower.size * manyShare))],
      rowsMax: isQuick ? fewRows : undefined,
      lock: this.#statements.lock,
      oid: this.#statements.oid,
    }
  }

  /**
   * Copies the table, as it is described now, into the follower's stage, in one REPEATABLE READ transaction whose snapshot
   * becomes the cursor: no row is missed or doubled between copy and stream. `identity`: of the log that is followed.
   */
  async copy(pool: pg.Pool, identity: string | undefined, isFirst: boolean): Promise<void> {
    if (!isFirst) await pause(randomInt(copySpreadMs))
    const timeoutMs = isFirst ? firstCopyLockMs : freshCopyLockMs
    const copy = (): Promise<TableCopy> => copyTable(pool, this.#schema, this.follower, identity)
    const { table, statements, head } = await retryWhileLocked(copy, { timeoutMs })
    this.#table = table
    this.#statements = statements
    statementCount += 1
    this.#statementName = `trunkline_follow_${statementCount}`
    this.cursor = head.snapshot
    this.hasStagedCopy = true
    this.failures = 0
  }
}

/** What brings them to the next snapshot. */
export function statementsOf(subscriptions: readonly TableSubscription[], expectsFew: boolean): RoundStatement[] {
  return subscriptions
    .map((subscription) => subscription.statement(expectsFew))
    .filter((statement) => statement !== undefined)
}

interface TableCopy {
  readonly table: TableDescription
  readonly statements: TableStatements
  readonly head: RoundHead
}

async function copyTable(
  pool: pg.Pool,
  schema: string,
  follower: TableFollower,
  identity: string | undefined,
): Promise<TableCopy> {
  const pace = new CopyPace()
  const copy = async (client: pg.PoolClient): Promise<TableCopy> =>
    copyOver(new CopyConnection(client), { schema, follower, identity, pace })
  for (;;) {
    try {
      // Closed, not reused, after a failure: a statement may still run on it.
      return await withClient(pool, copy, { isReusable: () => false, freeTimeoutMs })
    } catch (error) {
      if (error instanceof SlowPageError && pace.failed()) continue
      throw toTrunklineError(error, `Copying ${follower.selection.table}`)
    }
  }
}

interface CopyTask {
  readonly schema: string
  readonly follower: TableFollower
  readonly identity: string | undefined
  readonly pace: CopyPace
}

async function copyOver(
  connection: CopyConnection,
  { schema, follower, identity, pace }: CopyTask,
): Promise<TableCopy> {
  const { schemaName, tableName, isLockable } = await describeTable(connection, schema, follower.selection)
  await connection.run('begin isolation level repeatable read read only')
  await connection.run(`set local lock_timeout = ${lockTimeoutMs}`)
  // Before the snapshot: see RoundRunner. And described again: DDL may have come in between.
  if (isLockable) await connection.run(`lock table ${quoteQualified(schemaName, tableName)} in access share mode`)
  const table = await describeTable(connection, schema, follower.selection)
  const statements = tableStatements(schema, table)
  follower.beginCopy(table)
  const head = parseHead((await connection.run(headStatement(schema, true)))[0])
  if (head.identity !== identity) throw otherLog(identity, head.identity)
  await connection.run(`declare trunkline_copy no scroll cursor for ${statements.copy}`)
  for (;;) {
    const asked = pace.rows
    const start = performance.now()
    const rows = await fetchPage(connection, { table, prefix: statements.copyPrefix, count: asked })
    follower.stageCopy({ prefix: statements.copyPrefix, rows })
    if (rows.length < asked) break
    pace.took(performance.now() - start)
  }
  await connection.run('commit')
  return { table, statements, head }
}

async function fetchPage(
  connection: CopyConnection,
  { table, prefix, count }: { table: TableDescription; prefix: number; count: number },
): Promise<unknown[][]> {
  const timeoutMs = count === 1 ? wideRowTimeoutMs : roundTimeoutMs
  try {
    return await connection.run(`fetch ${count} from trunkline_copy`, timeoutMs)
  } catch (error) {
    if (error instanceof UnreadableValue) throw undecodable(table, table.columns[error.place - prefix], error.cause)
    // The driver's only mark of its own time-out is the text.
    throw messageOf(error) === 'Query read timeout' ? new SlowPageError(table, count, timeoutMs, error) : error
  }
}

/** A page of a copy was not there in time. */
class SlowPageError extends ConnectionError {
  constructor({ schemaName, tableName }: TableDescription, rows: number, timeoutMs: number, cause: unknown) {
    super(`The server did not send ${rows} rows of ${schemaName}.${tableName} within ${timeoutMs} ms.`, {
      code: 'timed_out',
      retryable: true,
      hint: 'It is out of reach, or slow, or the rows are very wide: leave columns out (columns).',
      cause,
    })
  }
}

function undecodable(table: TableDescription, column: string | undefined, cause: unknown): TrunklineError {
  const name = `${table.schemaName}.${table.tableName}`
  return new TrunklineError(
    `Column "${column ?? 'of the key'}" of ${name} holds a value at which the parser of its type fails: ${messageOf(cause)}.`,
    {
      code: 'undecodable_value',
      hint: 'Mend the parser (types of the pool, pg.types.setTypeParser) or the row, or follow other columns.',
      details: { table: name, column },
      cause,
    },
  )
}

/** Each statement with a limit of time: a connection that has gone silent must not keep a copy for ever. */
class CopyConnection implements Queryable {
  readonly #client: pg.PoolClient

  constructor(client: pg.PoolClient) {
    this.#client = client
  }

  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
  async query<Row extends QueryResultRow>(text: string, values: unknown[] = []): Promise<{ rows: Row[] }> {
    return this.#client.query<Row>({ text, values, query_timeout: roundTimeoutMs } as pg.QueryConfig)
  }

  async run(text: string, timeoutMs: number = roundTimeoutMs): Promise<unknown[][]> {
    const types = new ColumnParsers(this.#client)
    const query = { text, types, rowMode: 'array', query_timeout: timeoutMs } as pg.QueryArrayConfig
    return (await this.#client.query<unknown[]>(query)).rows
  }
}
