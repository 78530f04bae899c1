import { type Logger, messageOf, silentLogger } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { notAttempted, toDeliveryError } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { appendLines, notOneLine } from './line-file.ts'

export interface FileSinkOptions {
  /** Where to write; its directory must exist. */
  readonly path: string
  /** Milliseconds that a call may take, writing and fsync included. Default 30,000. */
  readonly timeoutMs?: number | undefined
  readonly logger?: Logger | undefined
}

/** What waits for the next write. */
interface Waiting {
  readonly lines: Buffer
  readonly signal: AbortSignal
  readonly settle: PromiseWithResolvers<void>
}

const lineBreak = Buffer.from('\n')
/** Deliveries in one call: they share an fsync. */
const fileBatchSizeMax = 500

/**
 * NDJSON: one delivery a line. A delivery is confirmed when it is on the disk (fsync); calls that come while one is being
 * written share the next fsync. A line that a crash has cut is taken away before the next is written.
 */
export class FileSink extends BaseSink {
  readonly name: string
  readonly transport = 'lines'
  readonly batchSizeMax: number = fileBatchSizeMax
  readonly #path: string
  readonly #timeoutMs: number
  readonly #logger: Logger
  #waiting: Waiting[] = []
  #isWriting = false

  constructor({ path, timeoutMs, logger = silentLogger }: FileSinkOptions) {
    super()
    this.name = `file:${path}`
    this.#path = path
    this.#timeoutMs = checkedCount('timeoutMs', timeoutMs, 30_000)
    this.#logger = logger
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    await deadline.race(this.#append([], deadline.signal))
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    if (signal.aborted) return batch.map(() => notAttempted(false))
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    const refused = new Set<string>()
    const lines: Buffer[] = []
    const outcomes = batch.map(({ key, body }): DeliveryOutcome | 'written' => {
      if (key !== null && refused.has(key)) return notAttempted(true)
      if (body.includes('\n')) {
        if (key !== null) refused.add(key)
        return notOneLine(this.name)
      }
      lines.push(body, lineBreak)
      return 'written'
    })
    const failure = await this.#written(lines, deadline)
    return outcomes.map((outcome) => (outcome === 'written' ? failure : outcome))
  }

  /** Undefined: the lines are on the disk, all of them. Otherwise none is known to be. */
  async #written(lines: readonly Buffer[], deadline: Deadline): Promise<DeliveryOutcome> {
    if (lines.length === 0) return undefined
    try {
      await deadline.race(this.#enqueue(Buffer.concat(lines), deadline.signal))
      return undefined
    } catch (error) {
      return toDeliveryError(error)
    }
  }

  protected async onRelease(): Promise<void> {
    // No file is open between writes.
  }

  #enqueue(lines: Buffer, signal: AbortSignal): Promise<void> {
    const settle = Promise.withResolvers<void>()
    this.#waiting.push({ lines, signal, settle })
    if (!this.#isWriting) void this.#writeWaiting()
    return settle.promise
  }

  /** Writes until nothing waits. */
  async #writeWaiting(): Promise<void> {
    this.#isWriting = true
    while (this.#waiting.length > 0) {
      // What nobody waits for any more is not written: its caller has reported it as failed.
      const group = this.#waiting.filter(({ signal }) => !signal.aborted)
      this.#waiting = []
      const [first] = group
      if (first === undefined) continue
      try {
        await this.#append(
          group.map(({ lines }) => lines),
          first.signal,
        )
        for (const { settle } of group) settle.resolve()
      } catch (error) {
        for (const { settle } of group) settle.reject(error)
      }
    }
    this.#isWriting = false
  }

  async #append(lines: readonly Buffer[], signal: AbortSignal): Promise<void> {
    try {
      const { removedBytes } = await appendLines(this.#path, lines, signal)
      if (removedBytes > 0) {
        this.#logger.warn(`${this.name}: took away an unfinished last line of ${removedBytes} bytes.`)
      }
    } catch (error) {
      throw error instanceof DeliveryError ? error : this.#notWritable(error)
    }
  }

  #notWritable(cause: unknown): DeliveryError {
    return new DeliveryError(`${this.name} cannot be written: ${messageOf(cause)}.`, {
      code: 'file_not_writable',
      retryable: true,
      hint: 'Make its directory, give the right to write there, or free space.',
      cause,
    })
  }
}
