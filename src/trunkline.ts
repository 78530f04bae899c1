import pg, { type ClientConfig, type Pool } from 'pg'
import { Events, type EventsOptions } from './aggregates/index.ts'
import { Cache, type CacheOptions, type Row } from './cache/index.ts'
import { InvalidInputError, type Logger, Service, silentLogger } from './core/index.ts'
import {
  captureTable,
  type CaptureOptions,
  LogReader,
  type LogReaderOptions,
  releaseTable,
  TableFeed,
} from './log/index.ts'
import { emit, type EmitConnection, Inbox, type OutboxEvent } from './outbox/index.ts'
import { configFromUrl, guardPool, toTrunklineError, withDefaults } from './postgres/index.ts'
import { type ProjectedEvent, type Projection, type ProjectionOptions, Projections } from './projections/index.ts'
import {
  createFormat,
  DeadLetters,
  type Format,
  type FormatName,
  Relay,
  type RelayOptions as RelayCoreOptions,
  type Sink,
} from './relay/index.ts'
import {
  type ReadOptions,
  type ReplicaOptions,
  replicaUrlsFromEnvironment,
  Routing,
  type RoutingOptions,
  type TransactionFunction,
  type WriteOptions,
  type Written,
} from './routing/index.ts'
import { checkSchema, migrate, type MigrationReport } from './schema/index.ts'
import { sinkFromUrl } from './sinks/index.ts'

/** Default interval of looks at the log, in milliseconds. */
export const pollIntervalMsDefault = 1_000
/** Default rest after a look that found something, in milliseconds. */
export const minIntervalMsDefault = 10
/** Default time after which a cache that cannot be brought up to date says so, in milliseconds. */
export const staleAfterMsDefault = 5_000
/** Interval of the log's upkeep (rotation), in milliseconds. */
const upkeepIntervalMs = 60_000
/** Longer where polls are rarer than once a second: each upkeep takes a connection, and a fleet needs only one of them. */
const upkeepPolls = 60
/** And at least this often, in milliseconds. */
const upkeepIntervalMaxMs = 600_000

export interface TrunklineOptions {
  /** The database, as `postgres://user:password@host:port/database`. Give this or `pool`. */
  readonly url?: string | undefined
  /** An existing pool. It is used, and not ended; connections of our own are made from its options. */
  readonly pool?: Pool | undefined
  /**
   * A direct connection for LISTEN when `url` goes through a pooler in transaction mode; `false`: poll only. Default: `url`,
   * tried at start and given up for polling when nothing arrives.
   */
  readonly listenUrl?: string | false | undefined
  /**
   * Streaming standbys of the primary, for `read`: URLs, or `{ url, weight, name }`. Default: TRUNKLINE_REPLICA_URLS, with commas
   * between them; else none, and `read` runs on the primary.
   */
  readonly replicaUrls?: readonly (string | ReplicaOptions)[] | undefined
  /** How reads and writes are routed: limits of lag, fallback, time-outs. */
  readonly routing?: RoutingOptions | undefined
  /** Where the log lives. Default `trunkline`. */
  readonly schema?: string | undefined
  /**
   * Milliseconds between looks at the log where nothing wakes us: the safety net under NOTIFY, the delay without it. Default
   * 1,000. Lower costs one small query each time, and process.
   */
  readonly pollIntervalMs?: number | undefined
  /**
   * Milliseconds of rest after a look that found something: the bound on staleness under load. Default 10; 100 suits hundreds
   * of processes. Higher saves the server work.
   */
  readonly minIntervalMs?: number | undefined
  /** Milliseconds without a completed look after which caches emit `stale`. Default 5,000, at least twice the poll interval. */
  readonly staleAfterMs?: number | undefined
  /** The event store: keys of personal data. */
  readonly events?: EventsOptions | undefined
  /** Default: silent. */
  readonly logger?: Logger | undefined
}

/** A relay, see `Trunkline.relay`. */
export interface RelayOptions extends Omit<RelayCoreOptions, 'sink' | 'format'> {
  /** Where to: a sink, or a URL that names one of trunkline's own. */
  readonly sink: Sink | string
  /** How deliveries are written; the name of one of trunkline's own is fitted to the sink. Default `plain`. */
  readonly format?: Format | FormatName | undefined
}

/** One installation of trunkline, seen from this process. Make it with `createTrunkline`. */
export class Trunkline extends Service {
  readonly schema: string
  /** Makes consumers of messages idempotent. */
  readonly inbox: Inbox
  /** The event store: streams of events, appended with an expected version; aggregates, upcasters, personal data. */
  readonly events: Events
  /** What there is of projections: their states, and events that they have put aside. */
  readonly projections: Projections
  readonly #options: TrunklineOptions
  #ownPool: Pool | undefined
  readonly #logger: Logger
  readonly #feed: TableFeed
  readonly #relays = new Set<Relay>()
  readonly #routing: Routing
  #upkeep: NodeJS.Timeout | undefined

  constructor(options: TrunklineOptions) {
    super()
    checkOptions(options)
    this.schema = options.schema ?? 'trunkline'
    this.#logger = options.logger ?? silentLogger
    this.#options = options
    this.inbox = new Inbox(() => this.pool, this.schema)
    const pollIntervalMs = options.pollIntervalMs ?? pollIntervalMsDefault
    this.events = new Events({
      ...options.events,
      schema: this.schema,
      pool: () => this.pool,
      listenConfig: () => options.listenUrl !== false && readerConfig(options, this.pool),
      pollIntervalMs,
      minIntervalMs: options.minIntervalMs ?? minIntervalMsDefault,
      logger: this.#logger,
    })
    this.projections = new Projections({
      schema: this.schema,
      events: this.events,
      pool: () => this.pool,
      config: () => this.#routing.movedTo?.config ?? configOfPool(this.#firstPool),
      ready: async () => (this.#routing.hasReplicas ? this.#routing.start() : undefined),
      pollIntervalMs,
      logger: this.#logger,
    })
    this.#feed = new TableFeed({
      schema: this.schema,
      pool: () => this.pool,
      config: () => this.#routing.movedTo?.config ?? readerConfig(options, this.#firstPool),
      isListening: options.listenUrl !== false,
      pollIntervalMs,
      minIntervalMs: options.minIntervalMs ?? minIntervalMsDefault,
      staleAfterMs: options.staleAfterMs ?? Math.max(staleAfterMsDefault, 2 * pollIntervalMs),
      logger: this.#logger,
    })
    this.#routing = new Routing({
      ...options.routing,
      primary: options.pool === undefined ? configFromUrl(options.url ?? '', 'url') : configOf(options.pool),
      pool: options.pool,
      replicas: options.replicaUrls ?? replicaUrlsFromEnvironment(),
      logger: this.#logger,
    })
    // What reads the log belongs to the primary, wherever that is.
    let followed: ClientConfig | undefined
    this.#routing.on('primary', (node) => {
      const config = this.#routing.movedTo?.config
      if (node === undefined || config === followed) return
      followed = config
      this.#feed.reconnect()
      for (const relay of this.#relays) relay.reconnect()
      this.projections.reconnect()
    })
  }

  /** The connections to the primary that it works with: those given, or up to five of its own; after a fail-over, to the new one. */
  get pool(): Pool {
    return this.#routing.movedTo?.pool ?? this.#firstPool
  }

  get #firstPool(): Pool {
    return this.#options.pool ?? (this.#ownPool ??= createPool(this.#options.url ?? '', this.#logger))
  }

  /** Which server takes which transaction: sessions, pools for query builders, replicas, decisions, status. */
  get routing(): Routing {
    return this.#routing
  }

  /**
   * Runs a function in a read-only transaction on a replica, else by `routing.fallback`. Its connection is taken with its
   * first statement. Inside of another transaction it joins that one.
   *
   * @throws ReadOnlyTransactionError, ReplicaLagError, ReplicaUnavailableError, NoPrimaryError, RoutingTimeoutError,
   *   RecoveryConflictError; what the function throws.
   */
  async read<Result>(run: TransactionFunction<Result>, options?: ReadOptions): Promise<Result> {
    return this.#routing.read(run, options)
  }

  /**
   * Runs a function in a transaction on the primary, and commits it when the function resolves. With `withToken` it gives
   * `{ result, token }`, and a read `after` that token, anywhere, sees the write.
   *
   * @throws NoPrimaryError, TransactionAbortedError, CommitOutcomeUnknownError, RoutingTimeoutError; what the function throws.
   */
  async write<Result>(
    run: TransactionFunction<Result>,
    options: WriteOptions & { readonly withToken: true },
  ): Promise<Written<Result>>
  async write<Result>(run: TransactionFunction<Result>, options?: WriteOptions): Promise<Result>
  async write<Result>(run: TransactionFunction<Result>, options?: WriteOptions): Promise<Result | Written<Result>> {
    return this.#routing.write(run, options)
  }

  /** How new commits are learnt of at present: `listen`, or `poll` where or while LISTEN does not work. */
  get mode(): 'listen' | 'poll' {
    return this.#feed.mode
  }

  /** Installs the schema or brings it to this version. Harmless at every boot and from any number of processes. */
  async migrate(): Promise<MigrationReport> {
    return migrate({ pool: this.pool, schema: this.schema, logger: this.#logger })
  }

  /** Installs the triggers of a table; idempotent. `table` as in SQL; without a schema it is looked up in public. */
  async capture(table: string, options: CaptureOptions = {}): Promise<void> {
    await captureTable(this.pool, this.schema, table, options)
  }

  /** Removes the triggers of a table. False: it was not captured. */
  async release(table: string): Promise<boolean> {
    return releaseTable(this.pool, this.schema, table)
  }

  /**
   * Writes an event in the caller's transaction: it exists if and only if that commits. `tx`: a pg client or pool, a slonik
   * connection. Returns the event's id.
   */
  async emit(tx: EmitConnection, event: OutboxEvent): Promise<string> {
    return emit(tx, this.schema, event)
  }

  /** A captured table in memory, always equal to the table. Resolves when it is complete and level. */
  async cache<RowType = Row>(table: string, options: CacheOptions = {}): Promise<Cache<RowType>> {
    const cache = new Cache<RowType>(this.#feed, table, options, this.#logger)
    await cache.start()
    return cache
  }

  /** Reads the log itself, change by change; for whoever needs every step and not only the outcome. */
  async reader(options: Omit<LogReaderOptions, 'schema'>): Promise<LogReader> {
    return LogReader.open(this.pool, { ...options, schema: this.schema })
  }

  /**
   * A relay: delivers events and captured changes to a sink, at least once, those of a key in order. Start it with `start()`;
   * this object need not be started for it.
   *
   * @throws InvalidInputError `invalid_option`, `unknown_sink_scheme`, `invalid_sink_url`, `unknown_format`.
   */
  relay(options: RelayOptions): Relay {
    const { format = 'plain' } = options
    const sink = typeof options.sink === 'string' ? sinkFromUrl(options.sink, { logger: this.#logger }) : options.sink
    const config = (): ClientConfig => this.#routing.movedTo?.config ?? configOfPool(this.#firstPool)
    const listenConfig = (): ClientConfig | false =>
      this.#options.listenUrl !== false &&
      (this.#routing.movedTo?.config ?? readerConfig(this.#options, this.#firstPool))
    const context = {
      schema: this.schema,
      get config() {
        return config()
      },
      get listenConfig() {
        return listenConfig()
      },
      hasMoved: () => this.#routing.movedTo !== undefined,
      // As with the change log: a fail-over is followed.
      ready: async () => (this.#routing.hasReplicas ? this.#routing.start() : undefined),
      pollIntervalMs: this.#options.pollIntervalMs ?? pollIntervalMsDefault,
      minIntervalMs: this.#options.minIntervalMs ?? minIntervalMsDefault,
      logger: this.#logger,
    }
    const fitted = typeof format === 'string' ? createFormat(format, { transport: sink.transport }) : format
    const relay = new Relay(context, { ...options, sink, format: fitted })
    this.#relays.add(relay)
    return relay
  }

  /**
   * A projection: a read model made of events, by handlers, in the transaction of each append (`inline`) or after it (`async`), each event
   * exactly once. Start it with `start()`; this object need not be started for it.
   *
   * @throws InvalidInputError `invalid_option`.
   */
  projection(options: ProjectionOptions): Projection
  projection<Event extends ProjectedEvent>(options: ProjectionOptions<Event>): Projection
  projection<Event extends ProjectedEvent>(options: ProjectionOptions<Event>): Projection {
    return this.projections.create(options)
  }

  /** Deliveries that relays gave up: to be looked at, redriven or discarded. */
  get deadLetters(): DeadLetters {
    return new DeadLetters(this.pool, this.schema)
  }

  /** Resolves when all is released, the connections of its own included, also when it was never started. */
  override async stop(): Promise<void> {
    await Promise.all([this.projections.stop(), ...[...this.#relays].map((relay) => relay.stop())])
    await this.events.signal.stop()
    await super.stop()
    await this.#routing.stop()
    await this.events.settled()
    const pool = this.#ownPool
    this.#ownPool = undefined
    await pool?.end()
  }

  protected async onStart(): Promise<void> {
    // Without replicas there is nothing to route before somebody reads or writes.
    if (this.#routing.hasReplicas) await this.#routing.start()
    try {
      await checkSchema(this.pool, this.schema)
    } catch (error) {
      throw toTrunklineError(error, 'Starting trunkline')
    }
    await this.#feed.start()
    const polls = upkeepPolls * (this.#options.pollIntervalMs ?? pollIntervalMsDefault)
    const upkeepMs = Math.min(upkeepIntervalMaxMs, Math.max(upkeepIntervalMs, polls))
    this.#upkeep = setInterval(() => void this.#keepUp(), upkeepMs * (0.9 + 0.2 * Math.random()))
    this.#upkeep.unref()
  }

  protected async onStop(): Promise<void> {
    clearInterval(this.#upkeep)
    await Promise.all([...this.#feed.users].map((cache) => cache.stop()))
    await this.#feed.stop()
  }

  /** Any process may do it; a role that may not leaves it to one that may. */
  async #keepUp(): Promise<void> {
    try {
      await this.pool.query(`select ${pg.escapeIdentifier(this.schema)}.rotate()`)
      await this.inbox.cleanStep()
    } catch (error) {
      this.#logger.debug(`Log and inbox were not cleaned: ${(error as Error).message}`)
    }
  }
}

/**
 * Makes a Trunkline. Connects to nothing yet: `migrate`, `capture` and `release` may be called at once, `cache` after
 * `start`.
 *
 * @throws InvalidInputError when an option is wrong, naming it.
 */
export function createTrunkline(options: TrunklineOptions): Trunkline {
  return new Trunkline(options)
}

function createPool(url: string, logger: Logger): Pool {
  const pool = new pg.Pool({
    ...configFromUrl(url, 'url'),
    application_name: 'trunkline',
    max: 5,
    allowExitOnIdle: true,
  })
  // An idle connection that breaks is replaced when it is needed; unheard, the event would end the process.
  guardPool(pool)
  pool.on('error', (error) => logger.debug(`An idle connection broke: ${error.message}`))
  return pool
}

function checkOptions(options: TrunklineOptions): void {
  if ((options.url === undefined) === (options.pool === undefined)) {
    throw new InvalidInputError(
      options.url === undefined ? 'Neither url nor pool was given.' : 'Both url and pool were given.',
      {
        code: 'invalid_option',
        hint: 'Give the database as url (postgres://…), or an existing pg.Pool as pool.',
      },
    )
  }
  const known = [
    'url',
    'pool',
    'listenUrl',
    'replicaUrls',
    'routing',
    'schema',
    'pollIntervalMs',
    'minIntervalMs',
    'staleAfterMs',
    'events',
    'logger',
  ]
  const unknown = Object.keys(options).find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new InvalidInputError(`There is no option "${unknown}".`, {
      code: 'invalid_option',
      hint: `Options: ${known.join(', ')}.`,
    })
  }
  for (const name of ['pollIntervalMs', 'minIntervalMs', 'staleAfterMs'] as const) {
    const value: unknown = options[name]
    if (value === undefined || (typeof value === 'number' && Number.isFinite(value) && value > 0 && value < 2 ** 31))
      continue
    throw new InvalidInputError(`${name} is ${JSON.stringify(value)}, expected milliseconds above 0.`, {
      code: 'invalid_option',
    })
  }
}

/** For the connection that reads the log: the direct one where it is given. */
function readerConfig(options: TrunklineOptions, pool: Pool): ClientConfig {
  if (typeof options.listenUrl === 'string') return configFromUrl(options.listenUrl, 'listenUrl')
  return configOfPool(pool)
}

/** For connections of our own to where a pool leads. */
function configOfPool(pool: Pool): ClientConfig {
  const { max: _max, min: _min, idleTimeoutMillis: _idle, ...config } = configOf(pool)
  return withDefaults(config)
}

/** The options of a pool, with the password, which pg-pool hides from a spread. */
function configOf({ options }: Pool): Pool['options'] {
  return options.password === undefined ? options : { ...options, password: options.password }
}
