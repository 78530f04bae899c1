import { backoffMs, messageOf, Pause, TrunklineError } from '../core/index.ts'
import { type RecordedEvent, type SettledPage, streamName, type StreamParts } from '../events/index.ts'
import { Batches, BatchFailure } from './batch.ts'
import { isContention, otherHistory, PartitionLost } from './errors.ts'
import { partitionOf } from './partition-of.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import type { Build, Holding } from './projection-store.ts'

/** Longest pause before an event that fails is tried again, in milliseconds. */
const retryMaxMs = 30_000
/** How long a checkpoint may wait that moves over nothing but events that are not wanted, in milliseconds. */
const quietMoveMs = 100

/** So few positions behind the last one that was drawn, a build may be swapped in: the swap handles what is left. */
const nearEvents = 200n

interface WorkerOptions {
  readonly context: ProjectionContext
  readonly definition: Definition
  readonly build: Build
  readonly holding: Holding
  readonly position: bigint
  /** It is near the end of all events, or has fallen behind. */
  readonly onNear: (isNear: boolean) => void
  /** It moved: who waits for a position may look. */
  readonly onMoved: (partition: number, position: bigint) => void
  /** An event of a build that is being made does not go through. */
  readonly onGivenUp: (error: unknown) => void
}

/**
 * Works on one partition as long as it is this process's: reads events in their settled order and hands them to the handlers, a
 * batch a transaction. An event that fails is handled alone, then by the policy (docs/projections.md, P9 to P12).
 */
export class PartitionWorker {
  readonly #options: WorkerOptions
  readonly #batches: Batches
  readonly #ending = new AbortController()
  readonly #rest = new Pause()
  #position: bigint
  #parked = new Set<string>()
  /** The position of an event that is handled alone, or `all` of the page. */
  #alone: bigint | 'all' | undefined
  #isRequested = true
  #isOver = false
  /** The connection broke, or an answer is missing: what is ours is to be read anew. */
  #isInDoubt = true
  /** The database may have it as failing, by us or by who had it before. */
  #isNoted = true
  #wake: () => void = () => undefined
  #running: Promise<void> | undefined

  constructor(options: WorkerOptions) {
    this.#options = options
    this.#position = options.position
    this.#batches = new Batches({ ...options, signal: this.#ending.signal })
  }

  start(): void {
    this.#running = this.#run().finally(() => {
      this.#isOver = true
    })
  }

  /** It works no more: it was stopped, or has found that the partition is not its own. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** Somebody wants parked events retried or discarded. */
  request(): void {
    this.#isRequested = true
    this.#rest.wake()
    this.#wake()
  }

  /** Ends what is begun, which is rolled back where it is not done. */
  async stop(): Promise<void> {
    this.#ending.abort()
    this.#rest.wake()
    this.#wake()
    await this.#running
  }

  get #isEnding(): boolean {
    return this.#ending.signal.aborted
  }

  async #run(): Promise<void> {
    const { context, definition, holding } = this.#options
    const reader = context.events.settledReader({ categories: definition.categories })
    const waiter = context.events.signal.subscribe()
    this.#wake = () => waiter.wake()
    try {
      for (let failures = 0; !this.#isEnding;) {
        try {
          if (this.#isInDoubt) await this.#clearUp()
          if (this.#isRequested) await this.#serveRequests()
          // A partition keeps a part of each page.
          const limit = Math.min(definition.batchSize * this.#options.build.partitions, 2_000)
          const page = await reader.next(this.#position, limit)
          if (page.lastPosition < this.#position) await this.#checkHistory()
          if (page.lastPosition - page.upTo > nearEvents) this.#options.onNear(false)
          const isDone = await this.#handlePage(page)
          failures = 0
          if (isDone && page.lastPosition - page.upTo <= nearEvents) this.#options.onNear(true)
          if (isDone && !page.hasMore) await waiter.wait()
        } catch (error) {
          if (error instanceof PartitionLost) return
          failures += 1
          this.#isInDoubt = true
          await this.#outage(error, failures)
        }
      }
    } finally {
      waiter.end()
      this.#wake = () => undefined
      context.logger.debug(`Projection "${definition.name}" leaves partition ${holding.partition}.`)
    }
  }

  async #clearUp(): Promise<void> {
    const { context, holding } = this.#options
    const position = await context.store.positionOf(holding)
    if (position === undefined) throw new PartitionLost()
    this.#parked = await context.store.parkedStreams(holding, holding.partition)
    this.#moved(position)
    await this.#checkHistory()
    this.#isInDoubt = false
  }

  async #checkHistory(): Promise<void> {
    const { context, definition, holding } = this.#options
    if (await context.store.isAnchored(holding)) return
    throw otherHistory(definition.name, this.#position.toString())
  }

  /** False: it was left half-way. */
  async #handlePage(page: SettledPage): Promise<boolean> {
    const { build, holding } = this.#options
    let left = page.events.filter(({ stream }) => partitionOf(stream, build.partitions) === holding.partition)
    if (left.length === 0) return this.#move(page)
    while (left.length > 0) {
      if (this.#isEnding) return false
      // Also while an event stops the partition: what stops it may be that too many are parked.
      if (this.#isRequested) await this.#serveRequests()
      const batch = this.#nextBatch(left)
      const last = batch.at(-1) as RecordedEvent
      const isWhole = batch.length === left.length
      if (await this.#handleBatch(batch, isWhole ? page.upTo : BigInt(last.position))) left = left.slice(batch.length)
    }
    if (this.#alone === 'all') this.#alone = undefined
    return true
  }

  async #move(page: SettledPage): Promise<boolean> {
    if (page.upTo === this.#position && !this.#isNoted) return true
    if (!page.hasMore) await this.#rest.wait(quietMoveMs)
    if (this.#isEnding) return false
    await this.#moveTo(page.upTo)
    return true
  }

  /** Without an event: what was noted as failing is over, and the history is the one that it was. */
  async #moveTo(position: bigint): Promise<void> {
    const { context, definition, holding } = this.#options
    const outcome = await context.store.move(holding, this.#position, position)
    if (outcome === 'lost') throw new PartitionLost()
    if (outcome === 'other_history') throw otherHistory(definition.name, this.#position.toString())
    this.#isNoted = false
    this.#moved(position)
  }

  /** Events that are handled together: none after one that is suspected, and that one alone. */
  #nextBatch(left: readonly RecordedEvent[]): readonly RecordedEvent[] {
    if (this.#alone === undefined) return left.slice(0, this.#options.definition.batchSize)
    if (this.#alone === 'all') return left.slice(0, 1)
    const index = left.findIndex(({ position }) => BigInt(position) === this.#alone)
    return index === -1 ? left.slice(0, this.#options.definition.batchSize) : left.slice(0, Math.max(1, index))
  }

  /** False: it failed, and is to be tried again. */
  async #handleBatch(batch: readonly RecordedEvent[], to: bigint): Promise<boolean> {
    const { context, holding } = this.#options
    const behind = batch.filter(({ stream }) => this.#parked.has(stream))
    const events = behind.length === 0 ? batch : batch.filter(({ stream }) => !this.#parked.has(stream))
    try {
      await this.#batches.run({
        from: this.#position,
        to,
        events,
        also: async (client) => {
          if (behind.length > 0)
            await context.store.park(
              client,
              holding,
              behind.map((event) => ({ event })),
            )
        },
      })
    } catch (error) {
      if (!(error instanceof BatchFailure)) throw error
      // A connection that broke in it, or was given up, says nothing of a COMMIT: none was sent.
      // It is dealt with alone: not even one that is only to be parked may share its fate.
      if (batch.length > 1) {
        const suspect = error.index === undefined ? undefined : events[error.index]
        this.#alone = suspect === undefined ? 'all' : BigInt(suspect.position)
        return false
      }
      return this.#failedAlone(events[0] as RecordedEvent, to, error.cause)
    }
    if (events.some(({ position }) => BigInt(position) === this.#alone)) this.#alone = undefined
    this.#isNoted = false
    this.#moved(to)
    return true
  }

  /** True: it was parked. */
  async #failedAlone(event: RecordedEvent, to: bigint, error: unknown): Promise<boolean> {
    const { context, definition, holding, build } = this.#options
    if (this.#isEnding) return false
    const counts = !isContention(error)
    const { code, text } = described(error)
    const failure = { position: event.position, stream: event.stream, code, error: text, counts }
    this.#isNoted = true
    const attempts = await context.store.failed(holding, failure)
    if (attempts === undefined) throw new PartitionLost()
    context.logger.warn(`${text} (attempt ${attempts})`, { projection: definition.name, position: event.position })
    const isSpent = attempts >= definition.attemptsMax
    if (isSpent && definition.onFailure === 'park' && this.#parked.size < definition.parkedMax) {
      await this.#park(event, to, { attempts, code, error: text })
      return true
    }
    if (isSpent && build.state === 'building') {
      this.#options.onGivenUp(error)
      this.#ending.abort()
      return false
    }
    await this.#rest.wait(backoffMs(Math.max(1, attempts), { maxMs: retryMaxMs }))
    return false
  }

  async #park(
    event: RecordedEvent,
    to: bigint,
    failure: { attempts: number; code: string; error: string },
  ): Promise<void> {
    const { context, holding } = this.#options
    await this.#batches.run({
      from: this.#position,
      to,
      events: [],
      also: (client) => context.store.park(client, holding, [{ event, ...failure, firstAt: new Date() }]),
    })
    this.#parked.add(event.stream)
    this.#alone = undefined
    this.#moved(to)
  }

  /** Handles parked events that somebody wants retried, in the order of their stream, and removes those to be discarded. */
  async #serveRequests(): Promise<void> {
    this.#isRequested = false
    for (const stream of await this.#options.context.store.requestedStreams(this.#options.holding)) {
      if (this.#isEnding) return
      await this.#discard(stream)
      while (!this.#isEnding && (await this.#retryHead(stream)));
    }
  }

  async #discard(stream: StreamParts): Promise<void> {
    const { context, holding } = this.#options
    await this.#batches.run({
      from: this.#position,
      to: this.#position,
      events: [],
      also: (client) => context.store.discardParked(client, holding, stream),
    })
  }

  /** False: there is nothing more to do for the stream, or not now. */
  async #retryHead(stream: StreamParts): Promise<boolean> {
    const { context, holding } = this.#options
    const head = await context.store.parkedHead(holding, stream)
    if (head === undefined) this.#parked.delete(streamName(stream))
    if (head?.request !== 'retry') return false
    const position = BigInt(head.position)
    const range = { after: position - 1n, until: position, categories: undefined, limit: 1 }
    try {
      await this.#batches.run({
        from: this.#position,
        to: this.#position,
        events: await context.store.events(undefined, range),
        also: (client) => context.store.unpark(client, head.id),
      })
      return true
    } catch (error) {
      if (!(error instanceof BatchFailure)) throw error
      // Ended by us, or by somebody's lock: it is wanted as before, and the next heartbeat says so.
      if (this.#isEnding || isContention(error.cause)) return false
      const { code, text } = described(error.cause)
      await context.store.parkedAgain(head.id, code, text)
      return false
    }
  }

  async #outage(error: unknown, failures: number): Promise<void> {
    const { context, definition, holding } = this.#options
    if (this.#isEnding) return
    const { code, text } = described(error)
    context.logger.warn(`Projection "${definition.name}" waits: ${text}`, { code })
    // Seen in `status`, where the database can be told.
    this.#isNoted = true
    const failure = { position: null, stream: null, code, error: text, counts: true }
    try {
      await context.store.failed(holding, failure)
    } catch {
      // It will be seen in the log.
    }
    await this.#rest.wait(backoffMs(failures))
  }

  #moved(position: bigint): void {
    this.#position = position
    this.#options.onMoved(this.#options.holding.partition, position)
  }
}

function described(error: unknown): { code: string; text: string } {
  const code = error instanceof TrunklineError ? error.code : 'unexpected'
  return { code, text: messageOf(error).slice(0, 2_000) }
}
