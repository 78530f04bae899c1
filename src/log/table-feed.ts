import { setTimeout } from 'node:timers/promises'
import type pg from 'pg'
import type { ClientConfig } from 'pg'
import { backoffMs, InvalidInputError, type Logger, messageOf, Service, TrunklineError } from '../core/index.ts'
import {
  isConnectionFailure,
  isLockContention,
  isTooLarge,
  isVisible,
  quoteLiteral,
  type Snapshot,
  toTrunklineError,
} from '../postgres/index.ts'
import { type Demand, stopped } from './demand.ts'
import { isOtherLog, tableLocked } from './feed-errors.ts'
import { FreshCopies, isHolding } from './fresh-copies.ts'
import { type Installation, readInstallation } from './installation.ts'
import { Listener } from './listener.ts'
import { Rest } from './rest.ts'
import { isOutOfReach, type RoundResult, RoundRunner } from './round.ts'
import { Session } from './session.ts'
import { structureDueAfterMs } from './structure-pace.ts'
import { structureStatement } from './structure-statement.ts'
import type { TableFollower } from './table-feed-contract.ts'
import { statementsOf, TableSubscription } from './table-subscription.ts'
import { WakeUp } from './wake-up.ts'

/** How long `stop` waits for a round under way, in milliseconds. */
const stopPatienceMs = 1_000

export interface TableFeedOptions {
  readonly schema: string
  /** For copies and look-ups; asked for each time, as a restart may have replaced it. */
  readonly pool: () => pg.Pool
  /** For the one connection that reads the log: direct when `isListening`. Asked for each time, as a fail-over may have moved it. */
  readonly config: () => ClientConfig
  /** False: poll only, nothing is kept on the connection (a pooler may stand in between). */
  readonly isListening: boolean
  /** Milliseconds between looks while asleep: the safety net under NOTIFY, and the pace of polling without it. */
  readonly pollIntervalMs: number
  /** Milliseconds of rest after a round that found something. */
  readonly minIntervalMs: number
  /** Milliseconds without a completed round after which followers are told that they are stale. */
  readonly staleAfterMs: number
  readonly logger: Logger
}

/**
 * Keeps all followers of a process level with their tables, over one connection: rounds that bring every follower from its
 * snapshot to the next, woken by NOTIFY, by the poll interval, or by somebody who asks for freshness.
 *
 * F1. A round reads in one snapshot; its followers commit together and without anything in between: a transaction is
 *     visible in all of them or in none. While one begins anew, or its table is locked, the others wait; if that fails or
 *     takes long they go on, and that one is stale: F1 holds for those that are not.
 * F2. A follower's cursor moves only with its rows: whatever fails, the next round starts from what is visible.
 * F3. A round that was begun after a call sees all that had committed before the call.
 */
export class TableFeed extends Service {
  readonly #options: TableFeedOptions
  readonly #session: Session
  readonly #runner: RoundRunner
  readonly #wakeUp: WakeUp
  readonly #rest: Rest
  readonly #copies: FreshCopies
  readonly #subscriptions = new Set<TableSubscription>()
  /** What runs on it and is stopped before it. */
  readonly users: Set<{ stop(): Promise<void> }> = new Set()
  #demands: Demand[] = []
  #listener: Listener | undefined
  #installation: Installation | undefined
  #identity: string | undefined
  #loop: Promise<void> | undefined
  #stopping = new AbortController()
  /** The set of followed topics changed: the locks held do not cover it. */
  #topicsChanged = false
  #structureCheckedAt = 0
  #hasChangedSinceCheck = false
  #roundMs = 0
  #truncatedXid = 0n
  #lastError: Error | undefined

  constructor(options: TableFeedOptions) {
    super()
    this.#options = options
    this.#session = new Session(options.config, 'trunkline read')
    this.#runner = new RoundRunner(options.schema, this.#session)
    this.#wakeUp = new WakeUp(options.schema)
    const { pollIntervalMs, minIntervalMs } = options
    this.#rest = new Rest({ session: this.#session, wakeUp: this.#wakeUp, pollIntervalMs, minIntervalMs })
    this.#copies = new FreshCopies({
      pool: options.pool,
      identity: () => this.#identity,
      staleAfterMs: options.staleAfterMs,
      lastError: () => this.#lastError,
      logger: options.logger,
      onBegin: ({ statementName }) => void this.#runner.forget(statementName).catch(() => undefined),
      onCopied: () => {
        this.#topicsChanged = true
        this.#rest.demand()
      },
      onOtherLog: () => this.reconnect(),
    })
  }

  /** How new commits are learnt of: `listen`, or `poll` where or while LISTEN does not work. */
  get mode(): 'listen' | 'poll' {
    return this.#listener?.isUp === true ? 'listen' : 'poll'
  }

  /** True while the reader waits for a notification: for tests. */
  get isAsleep(): boolean {
    return this.#rest.isAsleep
  }

  /** Copies the table into the follower and keeps it level from then on. */
  async follow(follower: TableFollower): Promise<TableSubscription> {
    if (this.state !== 'running') {
      throw new InvalidInputError('trunkline is not started.', {
        code: 'not_started',
        hint: 'Call await trunkline.start() first.',
      })
    }
    const subscription = new TableSubscription(this.#options.schema, follower)
    try {
      await subscription.copy(this.#options.pool(), this.#identity, true)
      this.#subscriptions.add(subscription)
      this.#topicsChanged = true
      await this.fresh(subscription)
    } catch (error) {
      if (isOtherLog(error)) this.reconnect()
      this.unfollow(subscription)
      throw error
    }
    return subscription
  }

  /** The log is somewhere else now: closes the connections that read it, so that they are made anew. */
  reconnect(): void {
    if (this.state === 'idle') return
    void this.#session.close()
    this.#listener?.reconnect()
    this.#rest.demand()
  }

  unfollow(subscription: TableSubscription): void {
    subscription.isClosed = true
    this.#subscriptions.delete(subscription)
    this.#topicsChanged = true
    void this.#runner.forget(subscription.statementName).catch(() => undefined)
  }

  /**
   * Resolves when the follower has all that had committed before the call and, when an `xid` is given, what that
   * transaction did, too. The caller adds the time limit.
   */
  async fresh(subscription: TableSubscription, xid?: bigint): Promise<void> {
    if (subscription.isClosed || this.#isStopped()) throw stopped()
    await new Promise<void>((resolve, reject) => {
      this.#demands.push({ subscription, xid, resolve, reject })
      this.#rest.demand()
    })
  }

  protected async onStart(): Promise<void> {
    this.#stopping = new AbortController()
    this.#copies.start(this.#subscriptions)
    try {
      await this.#connect()
    } catch (error) {
      throw toTrunklineError(error, 'starting trunkline')
    }
    if (this.#options.isListening) {
      this.#listener = this.#createListener()
      await this.#listener.start()
    }
    this.#loop = this.#run()
  }

  protected async onStop(): Promise<void> {
    this.#stopping.abort()
    this.#copies.stop()
    this.#rest.demand()
    await this.#listener?.stop()
    this.#listener = undefined
    // A round under way may end; one that is stuck may not keep us.
    const loop = this.#loop ?? Promise.resolve()
    await Promise.race([loop, setTimeout(stopPatienceMs, undefined, { ref: false })])
    await this.#session.close()
    await loop
    for (const subscription of this.#subscriptions) await subscription.copying
    for (const demand of this.#demands.splice(0)) demand.reject(stopped())
    this.#subscriptions.clear()
    this.#wakeUp.forget()
  }

  #createListener(): Listener {
    const { config, logger } = this.#options
    return new Listener({
      config,
      channel: this.#installation?.channel ?? '',
      logger,
      notify: async (channel, payload) => {
        await this.#session.query(`select pg_notify(${quoteLiteral(channel)}, ${quoteLiteral(payload)})`)
      },
      onNotification: () => this.#rest.notify(),
      onUp: () => this.#rest.miss(),
      onDown: () => this.#rest.miss(),
    })
  }

  async #connect(): Promise<void> {
    this.#runner.reset()
    this.#wakeUp.forget()
    await this.#session.connect()
    const before = this.#installation
    const { identity, startedAt, losesCommits } = (this.#installation = await readInstallation(
      this.#session,
      this.#options.schema,
    ))
    const isOther = this.#isOtherLog(identity, [...this.#subscriptions])
    // A crash takes back commits that were seen and not yet on disk, and gives their transaction ids to others.
    if (!isOther && losesCommits && startedAt !== (before?.startedAt ?? startedAt))
      for (const subscription of this.#subscriptions) this.#copies.begin(subscription)
  }

  async #run(): Promise<void> {
    let timeouts = 0
    for (let failures = 0; !this.#isStopped();) {
      try {
        if (!this.#session.isConnected) await this.#connect()
        await this.#copies.untilCopied(this.#subscriptions)
        const hasChanged = await this.#round()
        failures = 0
        timeouts = 0
        if (!this.#isStopped()) await this.#restAfter(hasChanged)
      } catch (error) {
        if (this.#isStopped()) return
        failures += 1
        this.#lastError = error instanceof Error ? error : new Error(messageOf(error))
        if (!this.#session.isConnected) this.#wakeUp.forget()
        if (error instanceof TrunklineError && error.code === 'timed_out') timeouts += 1
        // Perhaps the step itself is too large for its time: a copy is read in pages, each with its own.
        if (timeouts === 2) for (const subscription of this.#subscriptions) this.#copies.begin(subscription)
        if (failures === 1) this.#options.logger.warn(`Reading the log failed, trying again: ${messageOf(error)}`)
        await this.#rest.retryAfter(backoffMs(failures))
      }
    }
  }

  #isStopped(): boolean {
    return this.#stopping.signal.aborted
  }

  /** One look at the log, for all followers. True when it found something. */
  async #round(): Promise<boolean> {
    const demands = this.#demands
    this.#demands = []
    const isNotified = this.#rest.beginRound()
    const lookedAt = performance.now()
    try {
      const ready = await this.#readable()
      const hasChanged =
        ready.length > 0 && (await this.#roundOf(ready, this.#structureDue(ready, demands, isNotified), lookedAt))
      this.#settle(demands, lookedAt)
      return hasChanged
    } catch (error) {
      this.#demands.unshift(...demands)
      throw error
    }
  }

  /** `checked`: the followers whose tables are looked at for DDL, too. */
  async #roundOf(
    ready: readonly TableSubscription[],
    checked: readonly TableSubscription[],
    lookedAt: number,
  ): Promise<boolean> {
    if (this.mode === 'listen') await this.#runner.useDirect()
    const structure = checked.length === 0 ? [] : [structureStatement(this.#options.schema, checked)]
    let result: RoundResult
    try {
      const quick = statementsOf(ready, this.#wakeUp.isAsleep)
      result = await this.#runner.run([...quick, ...structure])
      const isCut = quick.some(({ rowsMax }, place) => (result.results[place] ?? []).length >= (rowsMax ?? Infinity))
      if (isCut) result = await this.#runner.run([...statementsOf(ready, false), ...structure])
    } catch (error) {
      await this.#findWhy(ready, error)
      return true
    }
    this.#roundMs = performance.now() - lookedAt
    if (this.#isOtherLog(result.head.identity, ready)) return true
    if (checked.length > 0) this.#compareStructure(ready, result.results[ready.length] ?? [])
    const staged = ready.filter((subscription, place) => this.#stage(subscription, result, place))
    this.#truncatedXid = result.head.truncatedXid
    // F1: the others wait for it, and take this step again.
    if (ready.some(isHolding)) return true
    this.#commit(staged, result.head.snapshot, lookedAt)
    const hasChanged = result.results.slice(0, ready.length).some((rows) => rows.length > 0)
    if (checked.length === ready.length) {
      this.#structureCheckedAt = lookedAt
      this.#hasChangedSinceCheck = false
    } else this.#hasChangedSinceCheck ||= hasChanged
    return hasChanged || staged.length < ready.length
  }

  /** Followers that can be brought ahead: not those that are being copied, nor those whose table has long been locked. */
  async #readable(): Promise<TableSubscription[]> {
    const readable: TableSubscription[] = []
    for (const subscription of this.#subscriptions) {
      const statement = subscription.statement(false)
      if (statement === undefined) continue
      if (subscription.isGivenUp && (await this.#runner.isLocked(statement))) continue
      readable.push(subscription)
    }
    return readable
  }

  /** A round failed: whoever can goes on in the next one. */
  async #findWhy(ready: readonly TableSubscription[], error: unknown): Promise<void> {
    if (isConnectionFailure(error)) throw error
    if (isLockContention(error)) return this.#findLocked(ready)
    if (!isTooLarge(error)) return this.#findCulprits(ready, error)
    // The connection broke of it, so that nobody can be asked whose it is: their copies tell.
    for (const subscription of ready) this.#copies.begin(subscription)
  }

  /** Somebody holds a table (TRUNCATE, DDL) for longer than a round waits. F1: after a while the others go on without it. */
  async #findLocked(ready: readonly TableSubscription[]): Promise<void> {
    for (const subscription of ready) {
      const statement = subscription.statement(false)
      if (statement === undefined) continue
      if (!(await this.#runner.isLocked(statement))) {
        subscription.lockedSince = undefined
        continue
      }
      subscription.lockedSince ??= performance.now()
      if (performance.now() - subscription.lockedSince < this.#copies.patienceMs) continue
      this.#copies.giveUp(subscription, tableLocked(subscription.follower.selection.table))
    }
  }

  /** Stages what a round found for one follower. False: it cannot go on from where it is, a fresh copy is begun. */
  #stage(subscription: TableSubscription, result: RoundResult, place: number): boolean {
    const rows = result.results[place] ?? []
    if (subscription.isClosed || subscription.cursor === undefined) return false
    // TRUNCATE is not MVCC: a round that ran beside it may have seen neither the rows nor the mark. The mark is there now.
    const since =
      result.head.truncatedXid === this.#truncatedXid
        ? subscription.cursor
        : (subscription.previousCursor ?? subscription.cursor)
    if (isOutOfReach(since, result.head)) {
      this.#copies.begin(
        subscription,
        new TrunklineError('The log no longer reaches back to where the copy was.', { code: 'position_lost' }),
      )
      return false
    }
    if (rows.some((row) => row[0] === 'x')) {
      this.#copies.begin(subscription)
      return false
    }
    try {
      subscription.follower.stageChanges({ prefix: subscription.followPrefix, rows })
      return true
    } catch (error) {
      this.#options.logger.warn(`${subscription.follower.selection.table}: ${messageOf(error)}; taking a fresh copy`)
      this.#copies.begin(subscription)
      return false
    }
  }

  /** F1: nothing asynchronous between the first commit and the last. */
  #commit(staged: readonly TableSubscription[], snapshot: Snapshot, lookedAt: number): void {
    for (const subscription of staged) {
      subscription.previousCursor = subscription.hasStagedCopy ? undefined : subscription.cursor
      subscription.cursor = snapshot
      subscription.follower.commit({ isFresh: subscription.hasStagedCopy, lookedAt })
      subscription.hasStagedCopy = false
      subscription.lookedAt = lookedAt
      subscription.isStale = false
      subscription.isGivenUp = false
      subscription.lockedSince = undefined
      subscription.stepFailures = 0
      subscription.fault = undefined
    }
    for (const { follower } of staged) follower.announce()
  }

  /** After a restore, a fail-over or a new installation, numbers of the old log mean nothing. */
  #isOtherLog(identity: string | undefined, ready: readonly TableSubscription[]): boolean {
    this.#identity ??= identity
    if (identity === undefined || this.#identity === identity) return false
    this.#identity = identity
    const cause = new TrunklineError('The log is another one: the server was restored, promoted or set up anew.', {
      code: 'position_of_another_log',
    })
    this.#options.logger.warn(`${cause.message} Taking fresh copies.`)
    for (const subscription of ready) this.#copies.begin(subscription, cause)
    return true
  }

  /** Followers whose tables are to be looked at for DDL: at intervals all, and those of which somebody asks what is committed. */
  #structureDue(
    ready: readonly TableSubscription[],
    demands: readonly Demand[],
    isNotified: boolean,
  ): readonly TableSubscription[] {
    const isBusy = this.#wakeUp.isAsleep && isNotified
    const dueAfterMs = structureDueAfterMs({
      hasChanged: this.#hasChangedSinceCheck,
      roundMs: this.#roundMs,
      isBusy,
      pollIntervalMs: this.#options.pollIntervalMs,
    })
    if (performance.now() - this.#structureCheckedAt > dueAfterMs) return ready
    return ready.filter((one) => demands.some(({ subscription, xid }) => subscription === one && xid === undefined))
  }

  /** Followers whose tables changed since they were described begin anew. True: there is one. */
  #compareStructure(staged: readonly TableSubscription[], fingerprints: readonly (readonly unknown[])[]): boolean {
    const found = new Map(fingerprints as [string, string][])
    const changed = staged.filter(
      ({ table }) => table !== undefined && found.has(table.oid) && found.get(table.oid) !== table.fingerprint,
    )
    for (const subscription of changed) this.#copies.begin(subscription)
    return changed.length > 0
  }

  /** A statement failed: the followers whose table changed or whose own one fails start afresh, the others go on. */
  async #findCulprits(ready: readonly TableSubscription[], error: unknown): Promise<void> {
    // What is prepared is of the tables as they were: "cached plan must not change result type".
    for (const { statementName } of ready) await this.#runner.forget(statementName)
    const { results } = await this.#runner.run([structureStatement(this.#options.schema, ready)])
    let hasCulprit = this.#compareStructure(ready, results[0] ?? [])
    for (const subscription of ready) {
      const statement = subscription.statement(false)
      if (statement === undefined) continue
      try {
        await this.#runner.run([statement])
      } catch (own) {
        if (isConnectionFailure(own)) throw own
        hasCulprit = true
        this.#options.logger.info(`${subscription.follower.selection.table}: ${messageOf(own)}; taking a fresh copy`)
        this.#copies.beginAfter(subscription, own)
      }
    }
    if (!hasCulprit) throw error
  }

  #settle(demands: readonly Demand[], lookedAt: number): void {
    for (const demand of demands) {
      const { subscription, xid } = demand
      const reason = subscription.isClosed ? stopped() : subscription.fault
      const cursor = subscription.lookedAt >= lookedAt ? subscription.cursor : undefined
      if (reason !== undefined) demand.reject(reason)
      else if (cursor !== undefined && (xid === undefined || isVisible(cursor, xid))) demand.resolve()
      else this.#demands.push(demand)
    }
  }

  async #restAfter(hasChanged: boolean): Promise<void> {
    if (this.#demands.some((demand) => demand.xid === undefined && demand.subscription.cursor !== undefined)) return
    const isAwake = hasChanged || this.#topicsChanged
    this.#topicsChanged = false
    await this.#rest.after({
      hasChanged: isAwake,
      roundMs: this.#roundMs,
      isListening: this.mode === 'listen',
      lockClass: this.#installation?.lockClass ?? 0,
      wakeKeys: [...this.#subscriptions].flatMap(({ table }) => (table?.isAnnounced === true ? [table.wakeKey] : [])),
    })
  }
}
