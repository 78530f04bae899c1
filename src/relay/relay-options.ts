import { hostname } from 'node:os'
import { InvalidInputError, type Logger } from '../core/index.ts'
import { parsePosition } from '../log/index.ts'
import type { Format } from './format.ts'
import type { Sink } from './sink.ts'

/** Longest name of a relay, in characters. */
const relayNameMax = 200
/** Default of `concurrency`. */
export const concurrencyDefault = 16
/** Default of `attemptsMax`. */
export const attemptsMaxDefault = 15
/** Default of `leaseMs`. */
export const leaseMsDefault = 5_000

/** What becomes of the later ones of its key when a delivery is a dead letter. */
export type AfterDeadLetter = 'continue' | 'hold'

export interface RelayOptions {
  /** Names it for good: its place in the log, its leases and its dead letters are kept under it. */
  readonly name: string
  /** Topics of events that it delivers. Neither topics nor tables: everything, also what appears later. */
  readonly topics?: readonly string[] | undefined
  /** Captured tables whose changes it delivers, as in SQL. */
  readonly tables?: readonly string[] | undefined
  readonly sink: Sink
  readonly format: Format
  /**
   * Calls of the sink at the same time, at most. Default 16. Keys are spread over that many lanes by a hash; a lane delivers
   * one batch after the other. More suits slow receivers, and costs them connections.
   */
  readonly concurrency?: number | undefined
  /** Deliveries in one call, at most; by default, and at most, what the sink takes. */
  readonly batchSizeMax?: number | undefined
  /** Where a relay of a new name begins: `beginning` (default: all that is still in the log), `now`, or a position. */
  readonly from?: string | undefined
  /** Attempts after which a delivery becomes a dead letter. Default 15, which with the default pauses takes about half an hour. */
  readonly attemptsMax?: number | undefined
  /** Pause after the first failure, in milliseconds; it doubles, and its upper half is random. Default 1,000. */
  readonly retryFirstMs?: number | undefined
  /** Longest pause between two attempts, in milliseconds. Default 300,000. */
  readonly retryMaxMs?: number | undefined
  /**
   * `continue` (default): the later ones of the key go on without the dead letter. `hold`: they wait until it is redriven or
   * discarded.
   */
  readonly onDeadLetter?: AfterDeadLetter | undefined
  /**
   * How long a process of this relay may be silent before the others take its keys over, in milliseconds. Default 5,000.
   * Shorter takes over sooner, and lets a slow server or a paused process lose its keys for nothing.
   */
  readonly leaseMs?: number | undefined
  /** Parts into which a relay of a new name splits its keys, to share them between processes. Default 16, at most 256. */
  readonly slots?: number | undefined
  /** Milliseconds between saved checkpoints under load: what a crash delivers again. Default 200. */
  readonly checkpointIntervalMs?: number | undefined
  /** Deliveries read ahead of the last saved checkpoint, at most. Default 5,000. More costs memory, and repeats after a crash. */
  readonly windowMax?: number | undefined
  /** Stored failed deliveries of the slots of this process at which it reads no further. Default 10,000. */
  readonly failedMax?: number | undefined
}

/** With every default put in. */
export type CheckedRelayOptions = {
  readonly [Name in Exclude<keyof RelayOptions, 'topics' | 'tables'>]-?: Exclude<RelayOptions[Name], undefined>
} & {
  readonly topics: readonly string[] | undefined
  readonly tables: readonly string[] | undefined
  /** Host and process id. */
  readonly process: string
  readonly logger: Logger
}

const integers = {
  concurrency: [1, 1_000],
  batchSizeMax: [1, 100_000],
  attemptsMax: [1, 1_000_000],
  retryFirstMs: [1, 2 ** 31 - 1],
  retryMaxMs: [1, 2 ** 31 - 1],
  leaseMs: [500, 3_600_000],
  slots: [1, 256],
  checkpointIntervalMs: [1, 60_000],
  windowMax: [1, 1_000_000],
  failedMax: [1, 10_000_000],
} as const

/** @throws InvalidInputError `invalid_option`, naming the option; `invalid_position`. */
export function checkRelayOptions(options: RelayOptions, logger: Logger): CheckedRelayOptions {
  checkName(options.name)
  checkFrom(options.from)
  for (const [name, [least, most]] of Object.entries(integers)) {
    const value = options[name as keyof typeof integers]
    if (value !== undefined && !(Number.isInteger(value) && value >= least && value <= most)) {
      throw invalid(`${name} is ${JSON.stringify(value)}`, `Pass a whole number from ${least} to ${most}.`)
    }
  }
  for (const name of ['topics', 'tables'] as const) {
    const value: unknown = options[name]
    if (value !== undefined && !(Array.isArray(value) && value.every((one) => typeof one === 'string' && one !== ''))) {
      throw invalid(`${name} is no list of names`, `Pass an array of strings, or leave it out for all.`)
    }
  }
  if (options.onDeadLetter !== undefined && !['continue', 'hold'].includes(options.onDeadLetter)) {
    throw invalid(`onDeadLetter is ${JSON.stringify(options.onDeadLetter)}`, "Pass 'continue' or 'hold'.")
  }
  const batchSizeMax = options.sink.batchSizeMax ?? 1
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as RelayOptions
  return {
    ...defaults,
    ...given,
    topics: emptyToUndefined(options.topics),
    tables: emptyToUndefined(options.tables),
    batchSizeMax: Math.min(batchSizeMax, options.batchSizeMax ?? batchSizeMax),
    process: `${hostname()}:${process.pid}`,
    logger,
  } as CheckedRelayOptions
}

const defaults = {
  concurrency: concurrencyDefault,
  from: 'beginning',
  attemptsMax: attemptsMaxDefault,
  retryFirstMs: 1_000,
  retryMaxMs: 300_000,
  onDeadLetter: 'continue',
  leaseMs: leaseMsDefault,
  slots: 16,
  checkpointIntervalMs: 200,
  windowMax: 5_000,
  failedMax: 10_000,
} as const

function checkName(name: unknown): void {
  if (typeof name === 'string' && name !== '' && name.length <= relayNameMax && !name.includes('\0')) return
  throw invalid(
    typeof name === 'string' ? `name has ${name.length} characters` : `name is a ${typeof name}`,
    `Name the relay, with 1 to ${relayNameMax} characters: its place in the log is kept under it.`,
  )
}

/** Found here, and not by the database: it is a mistake of its writer. */
function checkFrom(from: string = 'beginning'): void {
  if (from !== 'beginning' && from !== 'now') parsePosition(from)
}

function emptyToUndefined(names: readonly string[] | undefined): readonly string[] | undefined {
  return names === undefined || names.length === 0 ? undefined : names
}

function invalid(found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`Wrong relay: ${found}.`, { code: 'invalid_option', hint })
}
