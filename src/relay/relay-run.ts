import { randomUUID } from 'node:crypto'
import { backoffMs, messageOf, Pause, pause, type TrunklineError } from '../core/index.ts'
import { type Batch, LogReader, parsePosition, ReaderRest } from '../log/index.ts'
import { isConnectionFailure, toTrunklineError } from '../postgres/index.ts'
import { Deliverer, type DelivererOptions } from './deliverer.ts'
import { endedInTime, stopGraceMs } from './grace.ts'
import { HeldKeys } from './held-keys.ts'
import { Lanes } from './lanes.ts'
import { Membership } from './membership.ts'
import { noticesOf, type RelayRunEvents } from './notices.ts'
import { Outage } from './outage.ts'
import type { RelayContext } from './relay-context.ts'
import type { CheckedRelayOptions } from './relay-options.ts'
import { RelayPools } from './relay-pool.ts'
import { RelayStore, type TakenSlot } from './relay-store.ts'
import { Retries } from './retries.ts'
import { Router } from './router.ts'
import { Shares } from './shares.ts'

/** Deliveries done and not saved after which a checkpoint is due at once: what a crash repeats, about. */
const saveAfter = 1_000
/** How often the place of a relay that has nothing to do is saved, in milliseconds. */
const idleSaveMs = 10_000
/** Pause after an error that only somebody else can mend, in milliseconds. */
const brokenPauseMs = 5_000
/** Changes read at once, at most. */
const pageRowsMax = 1_000

interface Page {
  readonly batch: Batch
  readonly from: string
}

/** A relay from its start to its stop: reads the log for the slots that it owns, delivers, and saves how far it is. */
export class RelayRun {
  readonly #context: RelayContext
  readonly #options: CheckedRelayOptions
  readonly #events: RelayRunEvents
  readonly #held = new HeldKeys()
  readonly #outage = new Outage()
  readonly #shares: Shares
  readonly #membership: Membership
  readonly #lanes: Lanes
  readonly #retries: Retries
  readonly #router: Router
  readonly #pools: RelayPools
  readonly #idle = new Pause()
  readonly #saveWake = new Pause()
  #slotCount = 1
  #selection: LogReader['selection']
  #rest: ReaderRest | undefined
  #reader: LogReader | undefined
  /** The page after the one that is routed. */
  #ahead: Promise<Page> | undefined
  #loops: readonly Promise<void>[] = []
  #calls = new AbortController()
  #isStopping = false
  #isLevel = false
  /**
   * A connection was lost, perhaps because the server crashed. Its transaction ids that were not on disk are used again then:
   * a snapshot that was taken before, and not saved by a commit, could count later transactions among those it has seen. So
   * what was read is forgotten, and read again from the places that are saved.
   */
  #isInDoubt = false
  #isStartingOver = false
  #beatRead = ''
  #savedAt = 0
  #readFailures = 0
  failure: TrunklineError | undefined

  constructor(context: RelayContext, options: CheckedRelayOptions, events: RelayRunEvents) {
    this.#context = context
    this.#options = options
    this.#events = events
    this.#shares = new Shares({
      windowMax: options.windowMax,
      failedMax: options.failedMax,
      held: this.#held,
      store: () => this.#membership.store,
      onLost: () => this.#membership.doubt(),
      isInDoubt: () => this.#isInDoubt,
    })
    this.#pools = new RelayPools(
      () => context.config,
      options,
      () => {
        this.#isInDoubt = true
        this.#shares.wake()
        this.#rest?.wake()
      },
    )
    this.#membership = this.#makeMembership()
    const notices = noticesOf(options, events)
    const parts: DelivererOptions = {
      relay: options,
      store: () => this.#membership.store,
      held: this.#held,
      outage: this.#outage,
      isOwner: () => this.#membership.isGood,
      signal: () => this.#calls.signal,
      isStopping: () => this.#isStopping,
      onDelivered: events.delivered,
      onFailed: notices.failed,
      onOutage: (error) => {
        if (!this.#isStopping) notices.outage(error)
      },
      onRecovered: () => {
        notices.recovered()
        this.#lanes.wake()
        this.#retries.wake()
      },
      onDone: (entries) => {
        this.#shares.done(entries)
        if (this.#shares.unsaved >= Math.min(saveAfter, options.windowMax / 2)) this.#saveWake.wake()
        if (this.#shares.hasRoom) this.#shares.wake()
      },
      onStored: () => this.#retries.wake(),
      onLost: () => this.#membership.doubt(),
      onStoreFailed: (error) => events.error(toTrunklineError(error, `Storing failures of the relay ${options.name}`)),
    }
    const deliverer = new Deliverer(parts)
    this.#lanes = new Lanes({
      count: options.concurrency,
      batchSizeMax: options.batchSizeMax,
      gate: (hasWaited) => (this.#membership.isGood ? (hasWaited ? 0 : this.#outage.waitMs) : 50),
      deliver: (batch) => deliverer.deliver(batch),
      onError: (error) => events.error(toTrunklineError(error, `Delivering for the relay ${options.name}`)),
    })
    this.#retries = new Retries({
      ...parts,
      deliverer,
      share: (slot) => this.#shares.get(slot),
      slots: () => this.slots,
    })
    this.#router = new Router({
      relay: options,
      slotCount: () => this.#slotCount,
      shares: this.#shares,
      lanes: this.#lanes,
      retries: this.#retries,
      isStopping: () => this.#isStopping,
      onPassedOver: events.passedOver,
    })
  }

  get slots(): readonly number[] {
    return this.#shares.slots
  }

  async start(): Promise<void> {
    const { sink, logger, name } = this.#options
    const context = this.#context
    const { schema, pollIntervalMs, minIntervalMs } = context
    await sink.start()
    // Only to learn the topics, and early what is wrong with the log.
    const reader = await this.#openReader('now')
    this.#selection = reader.selection
    this.#rest = new ReaderRest({
      schema,
      queryable: this.#pools.read,
      get config() {
        return context.listenConfig
      },
      topicIds: reader.selection?.ids,
      pollIntervalMs,
      minIntervalMs,
      logger,
    })
    await this.#rest.start()
    try {
      await this.#membership.start()
    } catch (error) {
      throw toTrunklineError(error, `Starting the relay ${name}`)
    }
    this.#retries.start()
    this.#loops = [this.#read(), this.#keep()]
  }

  /** The log is somewhere else now: what was read is forgotten, and read again there from the places that are saved there. */
  reconnect(): void {
    this.#isInDoubt = true
    this.#pools.reconnect()
    this.#rest?.reconnect()
  }

  /** Ends calls in flight, saves all places and gives all slots back. */
  async stop(): Promise<void> {
    this.#isStopping = true
    this.#wakeAll()
    const late = Promise.withResolvers<void>()
    const giveUpOnSink = setTimeout(late.resolve, 2 * stopGraceMs)
    if (!(await endedInTime(this.#shares.leave(), () => this.#outage.error !== undefined))) this.#calls.abort()
    // A sink that does not settle although it was told to give up must not hold up everything (S3).
    await Promise.race([Promise.all([this.#lanes.stop(), this.#retries.stop()]), late.promise])
    // A timer that is left would keep the process from ending.
    clearTimeout(giveUpOnSink)
    await Promise.all(this.#loops)
    await this.#dropAhead()
    await this.#membership.stop()
    await this.#leave()
    await this.#rest?.stop()
    await this.#options.sink.stop()
    await this.#pools.end()
  }

  /** See `Relay.drained`. */
  async drained(signal?: AbortSignal): Promise<boolean> {
    let target: string | undefined
    const isWanted = (): boolean => signal?.aborted !== true && !this.#isStopping
    while (isWanted()) {
      if (this.failure !== undefined) throw this.failure
      try {
        const { store } = this.#membership
        target ??= await store.presentSnapshot()
        if (this.#isLevel && this.#shares.isQuiet) await this.#shares.save()
        const behind = await store.behind(target)
        if (behind.slots === 0 && behind.retries === 0) return true
      } catch (error) {
        if (!isConnectionFailure(error)) throw toTrunklineError(error, `Draining the relay ${this.#options.name}`)
      }
      this.#rest?.wake()
      await pause(20)
    }
    return false
  }

  /** What this process still owns. A failure leaves it to the end of the lease. */
  async #leave(): Promise<void> {
    const { logger, name } = this.#options
    try {
      const { store } = this.#membership
      if (this.#shares.slots.length > 0 && this.#membership.isGood) await this.#shares.save(this.#shares.slots, true)
      await store.leave()
    } catch (error) {
      logger.debug(
        `The relay ${name} could not give its slots back, they are free when its lease ends: ${messageOf(error)}`,
      )
    }
    this.#shares.lose(this.#shares.slots)
  }

  async #read(): Promise<void> {
    while (!this.#isStopping) await this.#readOn().catch(async (error: unknown) => this.#tellReadFailure(error))
  }

  /** Reads and routes what is committed, and rests when that is all. */
  async #readOn(): Promise<void> {
    let hasChanged = false
    while (!this.#isStopping) {
      const reader = await this.#readyReader()
      if (reader === undefined) continue
      const page = this.#ahead ?? this.#nextPage(reader)
      this.#ahead = undefined
      const { batch, from } = await page
      this.#readFailures = 0
      this.failure = undefined
      // It may have been read over a new connection already.
      if (this.#isInDoubt) continue
      hasChanged ||= batch.changes.length > 0
      if (!batch.level && !this.#shares.hasNew) this.#readAhead(reader)
      await this.#router.route(batch, from).catch((error: unknown) => {
        // What is left of the page would be passed over.
        this.#isInDoubt = true
        throw error
      })
      this.#isLevel = batch.level
      if (!batch.level || this.#isStopping || this.#shares.hasNew) continue
      await this.#rest?.after(hasChanged)
      hasChanged = false
    }
  }

  async #nextPage(reader: LogReader): Promise<Page> {
    const from = reader.position
    return { batch: await reader.next(), from }
  }

  /** The server reads the next page while this one is delivered. */
  #readAhead(reader: LogReader): void {
    const page = this.#nextPage(reader)
    page.catch(() => undefined)
    this.#ahead = page
  }

  /** The reader, when there are slots to read for and room for more; else it has waited, and may be asked again. */
  async #readyReader(): Promise<LogReader | undefined> {
    if (this.#isInDoubt) await this.#startOver()
    if (this.#shares.slots.length === 0) {
      await this.#idle.wait(1_000)
      return undefined
    }
    if (this.#shares.hasNew || this.#reader === undefined) {
      if (!(await this.#reopen())) return undefined
    }
    if (this.#shares.hasRoom) return this.#reader
    this.#saveWake.wake()
    await this.#shares.room()
    return undefined
  }

  async #dropAhead(): Promise<void> {
    await this.#ahead?.catch(() => undefined)
    this.#ahead = undefined
  }

  /** Forgets all that was read, and takes its slots again as the database has them. */
  async #startOver(): Promise<void> {
    this.#isStartingOver = true
    this.#shares.lose(this.#shares.slots)
    await this.#dropAhead()
    this.#reader = undefined
    // What is in flight ends first: no key is delivered twice at once.
    await this.#lanes.idle()
    await this.#retries.suspended(() => Promise.resolve())
    this.#isInDoubt = false
    this.#isStartingOver = false
    this.#membership.wake()
  }

  /** One reader reads for all slots, from where the one that is furthest behind is. False: there are no slots any more. */
  async #reopen(): Promise<boolean> {
    await this.#dropAhead()
    const { read } = this.#shares
    const start = this.#shares.start(read === '' ? undefined : parsePosition(read))
    if (start === undefined) return false
    if (this.#reader?.position !== start.from) {
      // Slots take part only when there is a reader that begins early enough: opening one may fail.
      this.#reader = undefined
      this.#reader = await this.#openReader(start.from)
    }
    this.#shares.join(start)
    return true
  }

  async #openReader(from: string): Promise<LogReader> {
    const { topics, tables, windowMax } = this.#options
    return LogReader.open(this.#pools.read, {
      schema: this.#context.schema,
      from,
      topics,
      tables,
      // Found at the start: a table may be renamed while it runs.
      selection: this.#selection,
      decoding: 'json',
      pageRowsMax: Math.min(pageRowsMax, windowMax),
    })
  }

  /** Saves places now and then: soon when much is done. */
  async #keep(): Promise<void> {
    const { checkpointIntervalMs, logger } = this.#options
    for (let failures = 0; !this.#isStopping;) {
      await this.#saveWake.wait(failures === 0 ? checkpointIntervalMs : backoffMs(failures))
      const isDue = this.#shares.hasUnsaved || (this.#isLevel && performance.now() - this.#savedAt > idleSaveMs)
      if (this.#isStopping || !isDue || !this.#membership.isGood) continue
      try {
        await this.#shares.save()
        this.#savedAt = performance.now()
        failures = 0
      } catch (error) {
        failures += 1
        logger.debug(`Saving a checkpoint failed: ${messageOf(error)}`)
      }
    }
  }

  #makeMembership(): Membership {
    const { leaseMs, logger, name } = this.#options
    return new Membership({
      leaseMs,
      logger,
      join: () => this.#join(),
      moves: () => this.#moves(),
      slots: () => this.#shares.slots,
      canTake: () => !this.#isInDoubt && !this.#isStartingOver,
      onTaken: (slots) => this.#take(slots),
      onLost: (slots) => {
        logger.warn(`The relay ${name} has lost slots: another process may have taken them over.`, {
          slots: slots.join(),
        })
        this.#calls.abort()
        this.#calls = new AbortController()
        this.#shares.lose(slots)
        this.#events.slots(this.#shares.slots)
      },
      giveBack: (slots) => this.#giveBack(slots),
      onExpired: () => {
        this.#calls.abort()
        this.#calls = new AbortController()
      },
      onError: (error) => this.#events.error(toTrunklineError(error, `Keeping the leases of the relay ${name}`)),
    })
  }

  async #join(): Promise<RelayStore> {
    const { name, process, leaseMs, slots, sink, from } = this.#options
    const store = new RelayStore(this.#pools, this.#context.schema, name, randomUUID())
    const topicIds = this.#selection?.ids
    this.#slotCount = await store.join({ process, leaseMs, slots, topicIds, sink: sink.name, from })
    return store
  }

  async #take(slots: readonly TakenSlot[]): Promise<void> {
    const hasMoved = this.#context.hasMoved?.() === true
    await this.#shares.take(hasMoved ? await this.#membership.store.afterFailOver(slots) : slots)
    this.#events.slots(this.#shares.slots)
    this.#idle.wake()
    this.#rest?.wake()
    this.#retries.wake()
  }

  async #giveBack(slots: readonly number[]): Promise<void> {
    await this.#shares.leave(slots)
    await this.#shares.save(slots, true)
    this.#shares.lose(slots)
    this.#events.slots(this.#shares.slots)
  }

  /** Whether the relay holds the log with right: it is level, or it has moved. */
  #moves(): boolean {
    const { read } = this.#shares
    const hasMoved = read !== this.#beatRead
    this.#beatRead = read
    return hasMoved || (this.#isLevel && this.#shares.isQuiet)
  }

  #wakeAll(): void {
    this.#idle.wake()
    this.#saveWake.wake()
    this.#shares.wake()
    this.#rest?.wake()
    this.#retries.wake()
    this.#lanes.wake()
  }

  async #tellReadFailure(thrown: unknown): Promise<void> {
    const failures = (this.#readFailures += 1)
    const { logger, name } = this.#options
    const error = toTrunklineError(thrown, `Reading the log for the relay ${name}`)
    if (isConnectionFailure(error) || error.retryable) {
      if (failures === 1) logger.warn(`The relay ${name} cannot read the log, it goes on trying: ${error.message}`)
      if (failures === 1) this.#events.error(error)
      await this.#idle.wait(backoffMs(failures))
      return
    }
    const isNews = this.failure?.message !== error.message
    this.failure = error
    if (isNews) logger.error(`The relay ${name} cannot go on: ${error.message}`)
    if (isNews) this.#events.error(error)
    await this.#idle.wait(brokenPauseMs)
  }
}
