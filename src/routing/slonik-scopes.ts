import { AsyncLocalStorage } from 'node:async_hooks'
import type { DatabasePool, DatabaseTransactionConnection, QuerySqlToken } from 'slonik'
import { ConnectionError, InvalidInputError, messageOf, TrunklineError } from '../core/index.ts'
import { quoteLiteral } from '../postgres/index.ts'
import type { Reason } from './decision.ts'
import { isNodeFailure, serverFailuresMax, TransactionAbortedError } from './errors.ts'
import type { Node } from './node.ts'
import type { Lease, Request } from './request.ts'
import type { Router } from './router.ts'
import { parseToken } from './token.ts'
import { endedBefore, writeInReadOnly } from './transaction-errors.ts'
import { checkTransactionOptions, type ReadOptions } from './transaction-options.ts'

type Intent = 'read' | 'write'

/** A transaction under way, for what runs inside of it. */
interface Around {
  readonly intent: Intent
  readonly isolation: string | undefined
  readonly connection: DatabaseTransactionConnection
  readonly lease: Lease<object> | undefined
  /** The one around this one, for `requiresNew`. */
  readonly parent: Around | undefined
  state: 'open' | 'committed' | 'rolled back'
  /** Why it can only be rolled back. */
  doom: Error | undefined
  /** A statement failed in it. */
  hasFailed: boolean
}

/** What the calling code is in. */
interface Scope {
  readonly intent: Intent
  /** Of the transaction that begins now. */
  readonly options?: ReadOptions | undefined
  readonly transaction?: Around | undefined
  readonly parent?: Around | undefined
  /** Where it failed before. */
  readonly avoid?: ReadonlySet<Node> | undefined
  readonly again?: Reason | undefined
  lease?: Lease<object> | undefined
  hasBegun?: boolean
  /** Of the function. slonik tells that of its ROLLBACK instead, when the connection was lost. */
  failure?: unknown
}

interface Wanted {
  readonly intent: Intent
  readonly options: ReadOptions | undefined
}

type Handler<Result> = (connection: DatabaseTransactionConnection) => Promise<Result>

/** Which transaction of a slonik pool the calling code is in, and what it may do there: the rules are those of `trunkline.read`. */
export class SlonikScopes {
  readonly #router: Router
  readonly #mayRepeat: boolean
  readonly #scopes = new AsyncLocalStorage<Scope>()

  /** `mayRepeat`: functions of reads may run more than once. */
  constructor(router: Router, mayRepeat: boolean) {
    this.#router = router
    this.#mayRepeat = mayRepeat
  }

  readOnly<Result>(run: () => Result): Result {
    return this.#scopes.run({ intent: 'read', transaction: this.#scopes.getStore()?.transaction }, run)
  }

  /** What the connection that is taken now is for. */
  get request(): Request {
    const { intent = 'write', options = {}, parent, avoid, again } = this.#scopes.getStore() ?? {}
    const { label, isolation, after, maxLagMs } = options
    const floor = after === undefined ? undefined : parseToken(after)
    return {
      intent,
      label,
      isSerializable: isolation === 'serializable',
      floor,
      maxLagMs,
      isGuarded: intent === 'read',
      avoid,
      again,
      held: (node) => heldBy(parent, node),
    }
  }

  /** Where the transaction that begins now has come to. */
  took(lease: Lease<object>): void {
    const scope = this.#scopes.getStore()
    if (scope !== undefined) scope.lease = lease
  }

  /** A statement failed in the transaction around. */
  failed(): null {
    const around = this.#scopes.getStore()?.transaction
    if (around !== undefined) around.hasFailed = true
    return null
  }

  async transact<Result>(pool: DatabasePool, wanted: Wanted, handler: Handler<Result>): Promise<Result> {
    const { intent, options = {} } = wanted
    checkTransactionOptions(intent, options, 'slonik')
    if (options.requiresNew !== true) {
      const scope = this.#scopes.getStore()
      const around = joinable(scope?.transaction)
      if (intent === 'write' && (scope?.intent === 'read' || around?.intent === 'read')) {
        throw writeInReadOnly(options.label)
      }
      if (around !== undefined) return this.#join(around, wanted, handler)
    }
    return this.#transactOwn(pool, { intent, options }, handler)
  }

  async #transactOwn<Result>(pool: DatabasePool, wanted: Wanted, handler: Handler<Result>): Promise<Result> {
    const parent = this.#scopes.getStore()?.transaction
    const avoid = new Set<Node>()
    for (let failures = 0; ; failures += 1) {
      const scope: Scope = { ...wanted, parent, avoid, again: failures === 0 ? undefined : 'node-failed' }
      try {
        return await this.#scopes.run(scope, async () => this.#begin(pool, scope, handler))
      } catch (error) {
        const { lease } = scope
        const failure = lostOr(scope.failure ?? error)
        if (lease === undefined || !this.#mayRunAgain(scope, failure, failures)) throw failure
        avoid.add(lease.node)
      }
    }
  }

  /** slonik runs a function again where that may help; so does a read whose replica failed, on another server. */
  #mayRunAgain({ intent, lease, hasBegun }: Scope, error: unknown, failures: number): boolean {
    if (intent === 'write' || lease?.isPrimary !== false || failures >= serverFailuresMax) return false
    // Before BEGIN slonik has words of its own for a connection that was lost.
    return hasBegun !== true || (this.#mayRepeat && isNodeFailure(driverErrorOf(error)))
  }

  async #begin<Result>(pool: DatabasePool, scope: Scope, handler: Handler<Result>): Promise<Result> {
    const { intent, options = {} } = scope
    let around: Around | undefined
    try {
      const result = await pool.transaction(async (connection) => {
        const { isolation } = options
        const begun: Around = {
          intent,
          isolation,
          connection,
          lease: scope.lease,
          parent: scope.parent,
          state: 'open',
          doom: undefined,
          hasFailed: false,
        }
        around = begun
        scope.hasBegun = true
        scope.failure = undefined
        await applyOptions(connection, options)
        const inside = await this.#scopes.run({ intent, transaction: begun }, async () => {
          try {
            return await handler(connection)
          } catch (error) {
            scope.failure = error
            throw error
          }
        })
        if (begun.hasFailed) begun.doom ??= await whyFailed(connection)
        if (begun.doom !== undefined) throw abortedBy(begun.doom)
        return inside
      })
      if (around !== undefined) around.state = 'committed'
      return result
    } catch (error) {
      if (around !== undefined) around.state = 'rolled back'
      throw error
    }
  }

  async #join<Result>(around: Around, { intent, options = {} }: Wanted, handler: Handler<Result>): Promise<Result> {
    const { label, isolation, after } = options
    if (isolation !== undefined && isolation !== around.isolation) {
      throw new InvalidInputError(`The transaction around this one is not ${isolation}.`, {
        code: 'invalid_option',
        hint: 'Set the isolation of the outer one, or pass requiresNew: true.',
      })
    }
    if (after !== undefined) {
      throw new InvalidInputError('The transaction around this read has begun without its token.', {
        code: 'token_too_late',
        hint: 'Pass `after` to the outer read, or requiresNew: true to this one.',
      })
    }
    const { lease } = around
    this.#router.decide({
      request: { intent, label },
      node: lease?.node,
      isPrimary: lease?.isPrimary ?? false,
      reason: 'joined',
    })
    try {
      return await handler(around.connection)
    } catch (error) {
      // What it did cannot be told from the rest, so all is rolled back.
      if (intent === 'write') around.doom ??= error instanceof Error ? error : new Error(messageOf(error))
      throw error
    }
  }
}

/** slonik has no class for a connection that it has lost and not replaced yet. */
function lostOr(error: unknown): unknown {
  if (!messageOf(error).includes('pending destroy')) return error
  const message = 'The connection of this transaction was lost.'
  return new ConnectionError(message, { code: 'connection_failed', retryable: true, cause: error })
}

/** slonik wraps what the driver says, at times twice. */
export function driverErrorOf(error: unknown): unknown {
  if (error instanceof TrunklineError || !(error instanceof Error && error.cause instanceof Error)) return error
  return driverErrorOf(error.cause)
}

/** Connections of a server that transactions hold which wait for this one. */
function heldBy(around: Around | undefined, node: Node): number {
  if (around === undefined) return 0
  return (around.state === 'open' && around.lease?.node === node ? 1 : 0) + heldBy(around.parent, node)
}

/** What outlived a commit is on its own; what outlived a rollback must not commit alone. */
function joinable(around: Around | undefined): Around | undefined {
  if (around?.state === 'rolled back') throw endedBefore(around.doom)
  return around?.state === 'open' ? around : undefined
}

function abortedBy(doom: Error): TransactionAbortedError {
  return new TransactionAbortedError(`Nothing was committed: ${messageOf(doom)}`, {
    code: 'transaction_aborted',
    hint: 'A statement or a joined transaction failed before and its error was caught; let it through.',
    cause: doom,
  })
}

/** slonik takes the ROLLBACK that the server makes of COMMIT for success: the error of a failed statement, when no savepoint undid it. */
async function whyFailed(connection: DatabaseTransactionConnection): Promise<Error | undefined> {
  try {
    await connection.query(await unsafe('select 1'))
    return undefined
  } catch (error) {
    return error as Error
  }
}

/** slonik begins; what belongs to BEGIN comes as the first statements. */
async function applyOptions(connection: DatabaseTransactionConnection, options: ReadOptions): Promise<void> {
  const { isolation, statementTimeoutMs, label } = options
  if (isolation !== undefined) await connection.query(await unsafe(`set transaction isolation level ${isolation}`))
  const settings = [
    ...(statementTimeoutMs === undefined ? [] : [`'statement_timeout', '${Math.ceil(statementTimeoutMs)}'`]),
    ...(label === undefined ? [] : [`'application_name', ${quoteLiteral(label)}`]),
  ].map((each) => `set_config(${each}, true)`)
  if (settings.length > 0) await connection.query(await unsafe(`select ${settings.join(', ')}`))
}

/** A statement without values. */
export async function unsafe(text: string): Promise<QuerySqlToken> {
  const { sql } = await import('slonik')
  return sql.unsafe(Object.freeze(Object.assign([text], { raw: Object.freeze([text]) })))
}
