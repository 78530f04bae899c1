import { AsyncLocalStorage } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import type { ClientConfig, Pool } from 'pg'
import type { ClientConfigurationInput } from 'slonik'
import { InvalidInputError, type Logger, messageOf, pause, Service } from '../core/index.ts'
import type { Decision, DecisionCount } from './decision.ts'
import { ReadOnlyTransactionError } from './errors.ts'
import { type Carrier, type CarrierOptions, createCarrier } from './http.ts'
import { Node, probeTimeoutMs } from './node.ts'
import {
  checkDistinct,
  namedApart,
  type NodeConfig,
  nodeConfig,
  type ReplicaOptions,
  type RoutingOptions,
  type RoutingSettings,
  routingSettings,
} from './options.ts'
import { RoutedPool } from './routed-pool.ts'
import { Router } from './router.ts'
import { RoutingSession } from './session.ts'
import { type RoutedSlonik, routeSlonik } from './slonik.ts'
import { type NodeStatus, nodeStatus } from './status.ts'
import { formatToken, parseToken } from './token.ts'
import { Topology } from './topology.ts'
import { writeInReadOnly } from './transaction-errors.ts'
import {
  checkTransactionOptions,
  type ReadOptions,
  type TransactionOptions,
  type WriteOptions,
  type Written,
} from './transaction-options.ts'
import { RoutedTransaction } from './transaction.ts'

export interface RoutingSetup extends RoutingOptions {
  /** The server that is the primary now, as far as the caller knows. */
  readonly primary: ClientConfig
  /** Connections to it, used instead of own ones and not ended. */
  readonly pool?: Pool | undefined
  readonly replicas: readonly (string | ReplicaOptions)[]
  readonly logger: Logger
}

export interface RoutingEvents {
  /** A transaction was sent somewhere, or refused. */
  decision: [decision: Decision]
  /** Another server is the primary, or (undefined) none is known. */
  primary: [node: string | undefined]
}

/** What `routing.status()` tells. */
export interface RoutingStatus {
  readonly primary: string | undefined
  readonly timeline: number
  readonly nodes: readonly NodeStatus[]
  /** Since this process began. */
  readonly decisions: readonly DecisionCount[]
  /** Reads that the primary is taking now for want of a replica. */
  readonly fallbackReads: number
}

/** Longer ones a timer takes for 1 ms. */
const timerMsMax = 2 ** 31 - 1

interface Context {
  readonly session: RoutingSession | undefined
  readonly transaction: RoutedTransaction | undefined
}

/** A function that runs in a transaction. */
export type TransactionFunction<Result> = (tx: RoutedTransaction) => Result | Promise<Result>

/**
 * Reads to the replicas, writes to the primary, by what the caller says. Starts by itself with its first use; `start` waits
 * until every server was looked at and refuses what can never be a replica.
 */
export class Routing extends Service {
  readonly #setup: RoutingSetup
  readonly #settings: RoutingSettings
  readonly #events = new EventEmitter<RoutingEvents>()
  readonly #context = new AsyncLocalStorage<Context>()
  readonly #topology: Topology
  readonly #router: Router

  constructor({ primary, pool, replicas, logger, ...options }: RoutingSetup) {
    super()
    this.#setup = { primary, pool, replicas, logger }
    this.#settings = routingSettings(options)
    this.#topology = new Topology({
      settings: this.#settings,
      logger,
      onPrimary: (node) => {
        logger.info(node === undefined ? 'No primary is known.' : `The primary is ${node.name}.`)
        this.#tell('primary', node?.name)
      },
    })
    this.#router = new Router({
      settings: this.#settings,
      topology: this.#topology,
      logger,
      onDecision: (decision) => this.#tell('decision', decision),
    })
    const configs = replicas.map((replica, place) => nodeConfig(replica, `replicaUrls[${place}]`))
    checkDistinct(configs, primary)
    this.#topology.nodes = [this.#createNode(primaryConfig(primary), true)]
    for (const each of configs) this.#topology.nodes.push(this.#createNode(namedApart(each, this.#topology.nodes)))
  }

  /** Runs a function in a read-only transaction on a replica. Its connection is taken with its first statement. */
  async read<Result>(run: TransactionFunction<Result>, options: ReadOptions = {}): Promise<Result> {
    checkTransactionOptions('read', options)
    options.signal?.throwIfAborted()
    const around = this.#around(options)
    if (around !== undefined) return this.#join(around, 'read', () => run(around), options)
    try {
      return await this.#run('read', run, options).then(({ result }) => result)
    } catch (error) {
      if (!(error instanceof ReadOnlyTransactionError) || options.onWrite !== 'retryOnPrimary') throw error
      const { after: _after, maxLagMs: _maxLagMs, onWrite: _onWrite, ...rest } = options
      return this.write(run, { ...rest, requiresNew: true })
    }
  }

  /** Runs a function in a transaction on the primary. */
  async write<Result>(
    run: TransactionFunction<Result>,
    options: WriteOptions & { readonly withToken: true },
  ): Promise<Written<Result>>
  async write<Result>(run: TransactionFunction<Result>, options?: WriteOptions): Promise<Result>
  async write<Result>(run: TransactionFunction<Result>, options: WriteOptions = {}): Promise<Result | Written<Result>> {
    checkTransactionOptions('write', options)
    options.signal?.throwIfAborted()
    const around = this.#around(options)
    if (around !== undefined) {
      const result = await this.#join(around, 'write', () => run(around), options)
      return options.withToken === true ? { result, token: undefined } : result
    }
    const { result, transaction } = await this.#run('write', run, options)
    if (options.withToken !== true) return result
    const { position } = transaction
    return { result, token: position === undefined ? undefined : formatToken(position) }
  }

  /**
   * Runs a function, say the handling of one request, as one session: its reads see its writes and never go back in time.
   * `token`: where an earlier one had come to. Within another session it joins that one.
   */
  async session<Result>(
    run: (session: RoutingSession) => Result | Promise<Result>,
    { token }: { readonly token?: string | undefined } = {},
  ): Promise<Result> {
    const existing = this.currentSession
    // Inside of a transaction it stays inside.
    const transaction = this.currentTransaction
    if (token !== undefined) transaction?.require(parseToken(token))
    if (existing === undefined) {
      const session = new RoutingSession(token)
      return this.#context.run({ session, transaction: this.#context.getStore()?.transaction }, () => run(session))
    }
    if (token !== undefined) existing.raiseTo(token)
    return run(existing)
  }

  /** The same, synchronously, with a session that the caller keeps. */
  runIn<Result>(session: RoutingSession, run: (session: RoutingSession) => Result): Result {
    return this.#context.run({ session, transaction: undefined }, () => run(session))
  }

  get hasReplicas(): boolean {
    return this.#topology.nodes.length > 1
  }

  get currentSession(): RoutingSession | undefined {
    return this.#context.getStore()?.session
  }

  /** The transaction that the calling code runs in. */
  get currentTransaction(): RoutedTransaction | undefined {
    const transaction = this.#context.getStore()?.transaction
    return transaction?.isOpen === true ? transaction : undefined
  }

  /** Carries the token of each client's session from request to request: helpers for node:http, Fastify and Hono. */
  carrier(options: CarrierOptions): Carrier {
    return createCarrier(this, options)
  }

  /** Two pools as pg has them, for query builders: `read` gives connections to replicas, `write` to the primary. */
  pools(): { readonly read: Pool; readonly write: Pool } {
    const make = (intent: 'read' | 'write'): RoutedPool =>
      new RoutedPool({
        intent,
        router: this.#router,
        session: () => this.currentSession,
        ready: () => this.#ready(),
        size: this.#settings.poolSizeMax,
      })
    return { read: make('read'), write: make('write') }
  }

  /**
   * A slonik pool on the primary whose read-only work goes to a replica. Its connections are its own: end it.
   *
   * @throws InvalidInputError `missing_url` when the primary was given without a URL.
   */
  async slonik(configuration?: ClientConfigurationInput): Promise<RoutedSlonik> {
    return routeSlonik(
      {
        router: this.#router,
        session: () => this.currentSession,
        ready: async () => this.#ready(),
        primaryUrl: this.#setup.primary.connectionString,
        acquireTimeoutMs: this.#settings.acquireTimeoutMs,
      },
      configuration,
    )
  }

  /** Adds a replica now. One that cannot be reached yet serves reads as soon as it can. */
  async addReplica(replica: string | ReplicaOptions): Promise<void> {
    const config = nodeConfig(replica, 'replica')
    const others = this.#topology.nodes.filter(({ isFirst }) => !isFirst)
    checkDistinct([...others, config], this.#setup.primary)
    const node = this.#createNode(namedApart(config, this.#topology.nodes))
    this.#topology.nodes.push(node)
    if (this.state === 'idle') return
    node.start()
    await this.#untilLookedAt([node])
    try {
      this.#topology.checkFit(node)
    } catch (error) {
      await this.removeReplica(node.name)
      throw error
    }
  }

  /** Takes a replica away, by its name. Reads under way there may end. False: there is none. */
  async removeReplica(name: string): Promise<boolean> {
    const node = this.#topology.nodes.find((each) => each.name === name && !each.isFirst)
    if (node === undefined) return false
    node.isLeaving = true
    this.#topology.nodes = this.#topology.nodes.filter((each) => each !== node)
    if (node === this.#topology.primary) this.#topology.update(node)
    await node.stop()
    return true
  }

  /** What is known of the servers, and what was decided. */
  status(): RoutingStatus {
    const topology = this.#topology
    return {
      primary: topology.primary?.name,
      timeline: topology.timeline,
      nodes: topology.nodes.map((node) => nodeStatus(node, topology)),
      decisions: this.#router.counter.list(),
      fallbackReads: this.#router.fallbackReads,
    }
  }

  /** How to connect to the server that is the primary now, where that is not the one it began with. */
  get movedTo(): { readonly config: ClientConfig; readonly pool: Pool } | undefined {
    const { primary } = this.#topology
    return primary === undefined || primary.isFirst ? undefined : { config: primary.config, pool: primary.pool }
  }

  on<Name extends keyof RoutingEvents>(name: Name, listener: (...args: RoutingEvents[Name]) => void): this {
    // A listener of our own type is one of the emitter's, which cannot be told from the generic.
    this.#events.on(name, listener as never)
    return this
  }

  off<Name extends keyof RoutingEvents>(name: Name, listener: (...args: RoutingEvents[Name]) => void): this {
    this.#events.off(name, listener as never)
    return this
  }

  protected async onStart(): Promise<void> {
    const { nodes } = this.#topology
    for (const node of nodes) node.start()
    await this.#untilLookedAt(nodes)
    for (const node of nodes) this.#topology.checkFit(node)
  }

  protected async onStop(): Promise<void> {
    await Promise.all(this.#topology.nodes.map(async (node) => node.stop(this.#settings.acquireTimeoutMs)))
  }

  /** What a listener throws is logged: it is told of what happened, and has no part in it. */
  #tell<Name extends keyof RoutingEvents>(name: Name, ...args: RoutingEvents[Name]): void {
    try {
      this.#events.emit(name, ...(args as never))
    } catch (error) {
      this.#setup.logger.error(`A listener of the event ${name} failed: ${messageOf(error)}`)
    }
  }

  async #ready(): Promise<void> {
    if (this.state !== 'running') await this.start()
  }

  /** Every server answered or failed to; one that hangs is not waited for longer than a look may take. */
  async #untilLookedAt(nodes: readonly Node[]): Promise<void> {
    const until = performance.now() + probeTimeoutMs + 500
    while (nodes.some(({ looks }) => looks === 0) && performance.now() < until) {
      await Promise.race([this.#topology.changed(), pause(50)])
    }
  }

  #createNode(config: NodeConfig, isFirst = false): Node {
    const { poolSizeMax, acquireTimeoutMs, healthIntervalMs, timeoutMs } = this.#settings
    return new Node({
      ...config,
      isFirst,
      pool: isFirst ? this.#setup.pool : undefined,
      poolSizeMax,
      acquireTimeoutMs,
      healthIntervalMs,
      timeoutMs,
      logger: this.#setup.logger,
      onLook: (node) => this.#topology.update(node),
    })
  }

  #around({ requiresNew }: TransactionOptions): RoutedTransaction | undefined {
    const transaction = requiresNew === true ? undefined : this.#context.getStore()?.transaction
    return transaction?.isJoinable === true ? transaction : undefined
  }

  async #join<Result>(
    around: RoutedTransaction,
    intent: 'read' | 'write',
    run: () => Result | Promise<Result>,
    { after, label, isolation }: ReadOptions & WriteOptions,
  ): Promise<Result> {
    if (intent === 'write' && around.intent === 'read') throw writeInReadOnly(label)
    if (isolation !== undefined && isolation !== around.isolation) {
      throw new InvalidInputError(`The transaction around this one is not ${isolation}.`, {
        code: 'invalid_option',
        hint: 'Set the isolation of the outer one, or pass requiresNew: true.',
      })
    }
    if (after !== undefined) around.require(parseToken(after))
    around.noteJoined(intent, label)
    try {
      return await run()
    } catch (error) {
      if (intent === 'write') around.doom(error)
      throw error
    }
  }

  async #run<Result>(
    intent: 'read' | 'write',
    run: TransactionFunction<Result>,
    options: ReadOptions & WriteOptions,
  ): Promise<{ result: Result; transaction: RoutedTransaction }> {
    const store = this.#context.getStore()
    const timeoutMs = options.timeoutMs ?? this.#settings.timeoutMs
    const transaction = new RoutedTransaction(intent, options, {
      router: this.#router,
      session: store?.session,
      parent: this.currentTransaction,
      timeoutMs,
      logger: this.#setup.logger,
      ready: this.state === 'running' ? undefined : () => this.#ready(),
    })
    const work = async (): Promise<{ result: Result; transaction: RoutedTransaction }> => {
      try {
        const context = { session: store?.session, transaction }
        const result = await this.#context.run(context, () => run(transaction))
        await transaction.commit()
        return { result, transaction }
      } catch (error) {
        await transaction.rollBack(error)
        throw error
      }
    }
    const { signal } = options
    return new Promise((resolve, reject) => {
      const expire = (): void => reject(transaction.expire())
      const isBounded = timeoutMs > 0 && timeoutMs <= timerMsMax
      const timer = isBounded ? setTimeout(expire, timeoutMs) : undefined
      const abort = (): void => reject(transaction.abort(signal?.reason))
      signal?.addEventListener('abort', abort)
      void work()
        .then(resolve, reject)
        .finally(() => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', abort)
        })
    })
  }
}

function primaryConfig(config: ClientConfig): NodeConfig {
  const { host = 'localhost', port = 5432, connectionString } = config
  const name = connectionString === undefined ? `${host}:${port}` : nodeConfig({ url: connectionString }, 'url').name
  return { name, weight: 1, config }
}
