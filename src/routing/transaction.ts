import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg'
import { InvalidInputError, type Logger, messageOf, type TrunklineError } from '../core/index.ts'
import { isConnectionFailure, toTrunklineError } from '../postgres/index.ts'
import type { Reason } from './decision.ts'
import {
  againElsewhere,
  CommitOutcomeUnknownError,
  isNodeFailure,
  isStandbyRefusal,
  RoutingTimeoutError,
  serverFailuresMax,
  TransactionAbortedError,
} from './errors.ts'
import { type Node, timelineWritten } from './node.ts'
import { endOfRead, positionAfterCommit } from './position.ts'
import { insertedStatement, replayedStatement } from './probe.ts'
import type { Lease, Request } from './request.ts'
import type { Router } from './router.ts'
import type { RoutingSession } from './session.ts'
import { laterOf, parseToken, type Position } from './token.ts'
import { transactionClient } from './transaction-client.ts'
import { endedBefore, endedInside, explainFailure, firstFailed } from './transaction-errors.ts'
import { preludeOf, type ReadOptions, type WriteOptions } from './transaction-options.ts'
import {
  cancelOnServer,
  cancelTimeoutMs,
  commitWith,
  cut,
  isEnded,
  type OpeningOutcome,
  queryAfter,
  strayStatus,
  within,
} from './wire.ts'

/** Bounds of the time, in milliseconds, that the end of a read, a rollback and the look at a position may take. */
export const endMsMax = 5_000
const endMsMin = 500

/** A statement as pg takes it. */
export type Statement = string | QueryConfig

export interface TransactionContext {
  readonly router: Router
  readonly session: RoutingSession | undefined
  /** The transaction around this one, for `requiresNew`. */
  readonly parent: RoutedTransaction | undefined
  readonly timeoutMs: number
  readonly logger: Logger
  /** Set while the servers have not been looked at. */
  readonly ready: (() => Promise<void>) | undefined
}

/**
 * A transaction that takes its connection with its first statement: until then it costs nothing, and by then all is known that
 * decides where it goes. Statements are sent one after the other. Give it to whatever takes a pg client's `query`.
 *
 * T1. BEGIN with its options travels with the first statement; neither runs without the other.
 * T2. It is opened again elsewhere only while nothing of an answer was seen: after a conflict with replay once, after a failure of
 *     the server twice, a write only when its BEGIN was refused.
 * T3. When the function has ended nothing more is sent but its end: a statement of a forgotten promise is refused.
 */
export class RoutedTransaction {
  readonly intent: 'read' | 'write'
  readonly #options: ReadOptions & WriteOptions
  readonly #context: TransactionContext
  #floor: Position | undefined
  #lease: Lease | undefined
  readonly #begunAt: number = performance.now()
  #hasBegun = false
  /** Something was sent and BEGIN not answered: what state the connection is in nobody knows. */
  #isUnclear = false
  #state: 'open' | 'ending' | 'ended' = 'open'
  /** COMMIT of a write was sent. */
  #isCommitting = false
  #isCommitted = false
  /** Why it can only be rolled back. */
  #doom: Error | undefined
  /** Why it was ended before its function was. */
  #expiry: Error | undefined
  #client: PoolClient | undefined
  #last: Promise<unknown> = Promise.resolve()
  readonly #hooks: (() => void)[] = []
  #position: Position | undefined

  constructor(intent: 'read' | 'write', options: ReadOptions & WriteOptions, context: TransactionContext) {
    this.intent = intent
    this.#options = options
    this.#context = context
    this.#floor = options.after === undefined ? undefined : parseToken(options.after)
  }

  get isolation(): string | undefined {
    return this.#options.isolation
  }

  /** Another transaction runs inside of this one. */
  noteJoined(intent: 'read' | 'write', label: string | undefined): void {
    const node = this.#lease?.node
    this.#context.router.decide({
      request: { intent, label },
      node,
      isPrimary: this.#lease?.isPrimary ?? false,
      reason: 'joined',
    })
  }

  /** Name of the server that it runs on; undefined before its first statement. */
  get node(): string | undefined {
    return this.#lease?.node.name
  }

  /** False when its function has ended. */
  get isOpen(): boolean {
    return this.#state === 'open'
  }

  /**
   * True while work may join it; false when it has committed: what outlived it is on its own.
   *
   * @throws TransactionAbortedError `transaction_ended` when it was rolled back or is ending: its work must not commit alone.
   */
  get isJoinable(): boolean {
    if (this.#state === 'open') return true
    if (this.#isCommitted) return false
    throw this.#over()
  }

  /** Where the primary was after COMMIT, where that was asked. */
  get position(): Position | undefined {
    return this.#position
  }

  /**
   * Runs a statement, the first one with BEGIN. An error of the connection surfaces here, at the first statement at the
   * earliest.
   *
   * @throws ReadOnlyTransactionError, RecoveryConflictError, ReplicaLagError, ReplicaUnavailableError, NoPrimaryError,
   *   RoutingTimeoutError; errors of the statement as pg gives them.
   */
  async query<Row extends QueryResultRow = QueryResultRow>(
    statement: Statement,
    values?: unknown[],
  ): Promise<QueryResult<Row>> {
    const config = configOf(statement, values)
    return this.#inTurn(async () => (await this.#run(config)) as QueryResult<Row>)
  }

  /**
   * The connection itself, inside of the transaction, for what needs a pg client: a query builder, a cursor, COPY. Never send
   * BEGIN, COMMIT or ROLLBACK over it. Its `release` does nothing, and after the function has ended it refuses statements.
   *
   * @throws what `query` throws.
   */
  async client(): Promise<PoolClient> {
    return this.#inTurn(async () => {
      if (!this.#hasBegun) await this.#run({ text: 'select' })
      if (this.#lease === undefined) throw this.#over()
      const refusal = (): Error | undefined => (this.#state === 'open' ? undefined : this.#over())
      return (this.#client ??= transactionClient(this.#lease.client, refusal))
    })
  }

  /** Called after COMMIT, or after the end of one that sent nothing; not after a rollback. What it throws is logged. */
  afterCommit(callback: () => void): void {
    this.#hooks.push(callback)
  }

  /** A joined transaction failed: what it did cannot be told from the rest, so all is rolled back. */
  doom(error: unknown): void {
    this.#doom ??= error instanceof Error ? error : new Error(messageOf(error))
  }

  /** A joined read asks for more than this one did. */
  require(position: Position): void {
    const lease = this.#lease
    if (lease === undefined) {
      this.#floor = laterOf(this.#floor, position)
      return
    }
    const { isolation } = this.#options
    // On the primary each statement of READ COMMITTED sees what committed before it; the others see what there was at the first one.
    const isFixed = isolation === 'repeatable read' || isolation === 'serializable'
    if (lease.isPrimary && !isFixed) {
      this.#context.router.refuseLost({ floor: position, session: this.#context.session })
      return
    }
    throw new InvalidInputError(
      `The transaction around this read has begun ${isFixed ? `in ${isolation}` : 'on a replica'}, without its token.`,
      { code: 'token_too_late', hint: 'Pass `after` to the outer read, or requiresNew: true to this one.' },
    )
  }

  /** Connections of a node that this transaction and those around it hold. */
  held(node: Node): number {
    const own = this.#lease?.node === node ? 1 : 0
    return own + (this.#context.parent?.held(node) ?? 0)
  }

  /** The time is over: cuts the connection, so that whoever waits for it waits no longer. */
  expire(): Error {
    return this.#cutOff(this.#timedOut(), 'it took too long')
  }

  /** The caller wants no more of it. What a signal has for a reason is an error but by its type. */
  abort(reason: unknown): Error {
    return this.#cutOff(reason, 'the caller gave up')
  }

  #cutOff(reason: unknown, why: string): Error {
    const lease = this.#lease
    const cause = this.#isCommitting && lease !== undefined ? this.#unknown(lease, why) : reason
    const error = cause instanceof Error ? cause : new Error(messageOf(cause))
    this.#expiry = cause as Error
    this.doom(error)
    this.#state = 'ended'
    if (lease !== undefined) {
      const end = (): void => {
        cut(lease.client, error)
        lease.release(error)
      }
      // A COMMIT that waits for a standby would end early by a request to cancel, and be a success to all others.
      if (this.#isCommitting) end()
      else void cancelOnServer(lease.client).then(end)
    }
    return this.#expiry
  }

  #timedOut(): Error {
    return new RoutingTimeoutError(`The transaction was not over within ${this.#context.timeoutMs} ms.`, {
      code: 'timed_out',
      retryable: true,
      hint: 'Shorten it, or raise timeoutMs; it was rolled back.',
      details: { node: this.node, label: this.#options.label },
    })
  }

  /** Ends it after its function resolved. */
  async commit(): Promise<void> {
    if (this.#state !== 'open') throw this.#doom ?? this.#over()
    // What was asked for before the end still runs.
    this.#state = 'ending'
    await this.#last
    if (this.#doom !== undefined) {
      await this.#rollBack()
      throw new TransactionAbortedError(`Nothing was committed: ${messageOf(this.#doom)}`, {
        code: 'transaction_aborted',
        hint: 'A statement or a joined transaction failed before and its error was caught; let it through.',
        cause: this.#doom,
      })
    }
    const lease = this.#lease
    if (lease !== undefined && isEnded(lease.client)) throw this.#endedInside(lease)
    if (lease !== undefined) await (this.intent === 'write' ? this.#commitWrite(lease) : this.#commitRead(lease))
    this.#state = 'ended'
    this.#isCommitted = true
    for (const hook of this.#hooks) {
      try {
        hook()
      } catch (error) {
        // It has committed: a failure told to the caller would be taken for that of the transaction.
        this.#context.logger.error(`A callback of afterCommit failed: ${messageOf(error)}`)
      }
    }
  }

  /** Ends it after its function failed. Never throws: the function's own error is what matters. */
  async rollBack(error: unknown): Promise<void> {
    if (this.#state === 'ended') return
    this.doom(error)
    this.#state = 'ended'
    await this.#rollBack()
  }

  async #inTurn<Result>(action: () => Promise<Result>): Promise<Result> {
    if (this.#state !== 'open') throw this.#over()
    const result = this.#last.then(action)
    this.#last = result.catch(() => undefined)
    return result
  }

  async #run(config: QueryConfig): Promise<QueryResult> {
    if (this.#state === 'ended') throw this.#over()
    if (!this.#hasBegun) return this.#open(config)
    const lease = this.#lease as Lease
    try {
      return await lease.client.query(config)
    } catch (error) {
      // Without its connection nothing of it can commit, also where this error is caught.
      if (isNodeFailure(error)) this.doom(error)
      throw this.#explain(error, config, lease)
    }
  }

  async #open(config: QueryConfig): Promise<QueryResult> {
    // As PostgreSQL has it: after a failed statement a transaction is over, also when that was the first.
    if (this.#doom !== undefined) throw firstFailed(this.#doom)
    const { router, ready } = this.#context
    await ready?.()
    const avoid = new Set<Node>()
    const prelude = preludeOf(this.intent, this.#options)
    let again: Reason | undefined
    for (let failures = 0; ; failures += 1) {
      const lease = await router.take(this.#request(avoid, again)).catch((error: unknown) => {
        this.doom(error)
        throw error
      })
      if (this.#state === 'ended') {
        lease.release()
        throw this.#over()
      }
      this.#lease = lease
      const outcome = await queryAfter(lease.client, prelude, config)
      this.#hasBegun = outcome.hasBegun
      this.#isUnclear = outcome.wasSent && !outcome.hasBegun
      if (outcome.result !== undefined) return outcome.result
      const error = outcome.error as Error
      again = this.#isEnded() ? undefined : retryReason(this.intent, lease, outcome, failures)
      if (again === undefined) {
        if (!outcome.hasBegun) this.doom(error)
        throw this.#explain(error, config, lease)
      }
      this.#hasBegun = false
      this.#lease = undefined
      lease.release(error)
      if (this.intent === 'write') await router.demote(lease.node)
      else avoid.add(lease.node)
    }
  }

  #request(avoid: ReadonlySet<Node>, again: Reason | undefined): Request {
    const { session, parent } = this.#context
    const { label, isolation, maxLagMs } = this.#options
    return {
      intent: this.intent,
      label,
      isSerializable: isolation === 'serializable',
      floor: this.#floor,
      session,
      maxLagMs,
      avoid,
      again,
      held: parent === undefined ? undefined : (node) => parent.held(node),
    }
  }

  #isEnded(): boolean {
    return this.#state === 'ended'
  }

  async #commitWrite(lease: Lease): Promise<void> {
    const { session } = this.#context
    const wantsPosition = session !== undefined || this.#options.withToken === true
    this.#isCommitting = true
    const outcome = wantsPosition ? await commitWith(lease.client, insertedStatement) : await commitOnly(lease.client)
    const { tag, error } = outcome
    if (this.#isEnded() && tag !== 'COMMIT') throw this.#unknown(lease, this.#doom ?? error)
    if (tag === undefined) {
      lease.release(error)
      throw this.#commitFailure(lease, error)
    }
    lease.release(error ?? strayStatus(lease.client))
    if (tag !== 'COMMIT') {
      throw new TransactionAbortedError('Nothing was committed: a statement had failed before.', {
        code: 'transaction_aborted',
        hint: 'Let the error of the statement through, or use a savepoint around it.',
      })
    }
    if (!wantsPosition) return
    this.#position = positionAfterCommit(lease.node, outcome.row)
    if (this.#position === undefined) session?.pin(timelineWritten(lease))
    else session?.unpin(this.#position)
  }

  #commitFailure(lease: Lease, error: Error | undefined): unknown {
    // pg's words for a connection that was lost before: COMMIT was not sent.
    if (error?.message.includes('not queryable') === true) {
      return toTrunklineError(error, `COMMIT on ${lease.node.name}`)
    }
    return error === undefined || isConnectionFailure(error) ? this.#unknown(lease, error) : error
  }

  /** Nothing depends on the end of a read (unless it is serializable): nobody waits for it. */
  async #commitRead(lease: Lease): Promise<void> {
    const { session } = this.#context
    const statement = lease.isPrimary ? insertedStatement : replayedStatement
    const { client } = lease
    const end = session === undefined ? commitOnly(client) : commitWith(client, statement)
    const ending = within(client, this.#endMs(), end).then((outcome) => {
      lease.release(outcome.error ?? strayStatus(lease.client))
      const position = session === undefined ? undefined : endOfRead(lease, outcome.row)
      if (position !== undefined) session?.raise(position)
      return outcome
    })
    session?.await(ending)
    if (this.#options.isolation !== 'serializable') return
    const { error } = await ending
    if (error !== undefined) throw error
  }

  async #rollBack(): Promise<void> {
    const lease = this.#lease
    if (lease === undefined) return
    if (!this.#hasBegun) {
      lease.release(this.#isUnclear ? new Error('BEGIN failed') : strayStatus(lease.client))
      return
    }
    // Behind a statement that nobody waits for any more: what it holds must not stay.
    const patienceMs = Math.max(endMsMin, this.#endMs() - cancelTimeoutMs)
    const ending = within(lease.client, patienceMs, lease.client.query('rollback'), async () =>
      cancelOnServer(lease.client),
    ).then(
      () => lease.release(strayStatus(lease.client)),
      (error: unknown) => lease.release(error as Error),
    )
    // Locks of a write are gone when its caller hears of the failure.
    if (this.intent === 'write') await ending
  }

  /** How long the end may take of which nobody waits for the outcome. */
  #endMs(): number {
    const { timeoutMs } = this.#context
    const leftMs = timeoutMs === 0 ? endMsMax : this.#begunAt + timeoutMs - performance.now()
    return Math.min(endMsMax, Math.max(endMsMin, leftMs))
  }

  #explain(error: unknown, { text }: QueryConfig, lease: Lease): unknown {
    if (this.#expiry !== undefined) return this.#expiry
    return explainFailure(error, { statement: text, intent: this.intent, lease, label: this.#options.label })
  }

  /** Also where it may not have committed: only the primary can tell. */
  #unknown(lease: Lease, cause: unknown): TrunklineError {
    this.#context.session?.pin()
    return new CommitOutcomeUnknownError(
      `COMMIT was sent to ${lease.node.name} and not answered: ${messageOf(cause)}.`,
      {
        code: 'commit_unknown',
        hint: 'It may have committed: look before you do it again.',
        details: { node: lease.node.name, label: this.#options.label },
        cause,
      },
    )
  }

  /** What its function sent ended it, and what came after that ran in none. */
  #endedInside(lease: Lease): Error {
    this.#state = 'ended'
    if (this.intent === 'write') this.#context.session?.pin()
    lease.release()
    return endedInside({ node: lease.node.name, label: this.#options.label })
  }

  #over(): Error {
    if (this.#expiry !== undefined) return this.#expiry
    if (this.#doom instanceof RoutingTimeoutError) return this.#doom
    return endedBefore(this.#doom)
  }
}

/** Why it may be opened once more elsewhere: only while nothing of an answer was handed out, and nothing can have been done. */
function retryReason(
  intent: 'read' | 'write',
  lease: Lease,
  { error, hasBegun }: OpeningOutcome,
  failures: number,
): Reason | undefined {
  if (intent === 'write')
    return !hasBegun && isStandbyRefusal(error) && failures < serverFailuresMax ? 'write' : undefined
  return lease.isPrimary ? undefined : againElsewhere(error, failures)
}

async function commitOnly(
  client: PoolClient,
): Promise<{ tag: string | undefined; row: undefined; error: Error | undefined }> {
  try {
    const { command } = await client.query('commit')
    return { tag: command, row: undefined, error: undefined }
  } catch (error) {
    return { tag: undefined, row: undefined, error: error as Error }
  }
}

function configOf(statement: Statement, values: unknown[] | undefined): QueryConfig {
  if (typeof statement === 'string') return values === undefined ? { text: statement } : { text: statement, values }
  if (typeof statement !== 'object' || (statement as object | null) === null || 'submit' in statement) {
    throw new InvalidInputError('query takes a text or { text, values }.', {
      code: 'invalid_statement',
      hint: 'A cursor or stream needs the connection: (await tx.client()).query(cursor).',
    })
  }
  return values === undefined ? statement : { ...statement, values }
}
