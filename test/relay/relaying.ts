import { onTestFinished } from 'vitest'
import {
  createTrunkline,
  type Delivery,
  DeliveryError,
  type DeliveryOutcome,
  type RelayOptions,
  type Sink,
  type Trunkline,
} from '../../src/index.ts'
import { createFormat } from '../../src/relay/index.ts'
import { install } from '../log/captured.ts'
import { createDatabase, type TestDatabase, type TestServer } from '../support/index.ts'

/** What a test decides about one delivery: nothing (it is confirmed), or how it fails. */
export type Verdict = DeliveryError | undefined

export interface RecordingOptions {
  readonly batchSizeMax?: number
  /** Asked before each delivery is confirmed; may wait. */
  readonly judge?: (delivery: Delivery, signal: AbortSignal) => Verdict | Promise<Verdict>
}

/** A sink in memory that remembers what it confirmed, in order. It keeps the contract: nothing of a key after its failure. */
export class RecordingSink implements Sink {
  readonly name = 'recording:'
  readonly batchSizeMax: number
  readonly confirmed: Delivery[] = []
  /** Message ids of every attempt. */
  readonly attempts: string[] = []
  readonly batchSizes: number[] = []
  started = 0
  stopped = 0
  /** Calls at this moment, and at most. */
  calls = 0
  callsMax = 0
  /** Keys of which two calls were under way at once. */
  readonly overlaps: string[] = []
  readonly #keys = new Set<string>()
  readonly #judge: RecordingOptions['judge']

  constructor({ batchSizeMax = 1, judge }: RecordingOptions = {}) {
    this.batchSizeMax = batchSizeMax
    this.#judge = judge
  }

  start(): Promise<void> {
    this.started += 1
    return Promise.resolve()
  }

  stop(): Promise<void> {
    this.stopped += 1
    return Promise.resolve()
  }

  async deliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    this.calls += 1
    this.callsMax = Math.max(this.callsMax, this.calls)
    this.batchSizes.push(batch.length)
    const keys = [...new Set(batch.flatMap(({ key }) => key ?? []))]
    for (const key of keys) {
      if (this.#keys.has(key)) this.overlaps.push(key)
      this.#keys.add(key)
    }
    try {
      return await this.#deliver(batch, signal)
    } finally {
      this.calls -= 1
      for (const key of keys) this.#keys.delete(key)
    }
  }

  /** Payloads of a key that were confirmed, in order. */
  of(key: string | null): unknown[] {
    return this.confirmed.filter((delivery) => delivery.key === key).map(({ change }) => change.payload)
  }

  async #deliver(batch: readonly Delivery[], signal: AbortSignal): Promise<DeliveryOutcome[]> {
    const failed = new Set<string>()
    const outcomes: DeliveryOutcome[] = []
    for (const delivery of batch) {
      if (delivery.key !== null && failed.has(delivery.key)) {
        outcomes.push(new DeliveryError('Not sent.', { code: 'not_attempted', retryable: true }))
        continue
      }
      this.attempts.push(delivery.messageId)
      const verdict = await this.#judge?.(delivery, signal)
      outcomes.push(verdict)
      if (verdict === undefined) this.confirmed.push(delivery)
      else if (delivery.key !== null) failed.add(delivery.key)
    }
    return outcomes
  }
}

/** A database with trunkline in it, gone after the test. */
export async function prepareDatabase(server: TestServer): Promise<TestDatabase> {
  const database = await createDatabase(server)
  onTestFinished(() => database.drop())
  await install(database.url)
  return database
}

/** Trunkline on a database; stopped after the test. */
export function open(url: string): Trunkline {
  const trunkline = createTrunkline({ url, pollIntervalMs: 200 })
  onTestFinished(() => trunkline.stop())
  return trunkline
}

/** The change as `tail --json` prints it. */
export const linesFormat = createFormat('plain', { transport: 'lines' })

/** Options that make a test quick. */
export function quick(options: Partial<RelayOptions> & { readonly sink: Sink }): RelayOptions {
  return {
    name: 'test',
    format: linesFormat,
    leaseMs: 1_000,
    retryFirstMs: 20,
    retryMaxMs: 50,
    checkpointIntervalMs: 20,
    ...options,
  }
}

/** Writes events of one transaction each. */
export async function emitAll(
  database: TestDatabase,
  events: readonly (readonly [string | null, unknown])[],
  topic = 'order',
): Promise<void> {
  for (const [key, payload] of events) {
    await database.query('select trunkline.emit($1, $2, $3, $4::jsonb)', [
      topic,
      key,
      'happened',
      JSON.stringify(payload),
    ])
  }
}

/** Writes `count` events in one statement, over so many keys; payloads count up for each key. */
export async function emitMany(database: TestDatabase, count: number, keys: number, topic = 'order'): Promise<void> {
  await database.query(
    `select trunkline.emit($1, 'k' || (n % $3), 'happened', to_jsonb(n / $3)) from generate_series(0, $2 - 1) as n`,
    [topic, count, keys],
  )
}

export function failing(code: string, retryable: boolean, retryAfterMs?: number): DeliveryError {
  return new DeliveryError(`It fails with ${code}.`, { code, retryable, retryAfterMs })
}
