import { inspect, isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, expect } from 'vitest'
import {
  type Cache,
  type CacheChange,
  createTrunkline,
  type Logger,
  type Trunkline,
  type TrunklineOptions,
} from '../../src/index.ts'
import { useTrunklineDatabase } from '../log/captured.ts'
import type { TestDatabase, TestServer } from '../support/index.ts'

export type AnyRow = Readonly<Record<string, unknown>>

/** A logger that keeps what it is told. */
export interface RecordingLogger extends Logger {
  readonly lines: { level: 'debug' | 'info' | 'warn' | 'error'; message: string }[]
  of(level: 'debug' | 'info' | 'warn' | 'error'): string[]
}

export function recordingLogger(): RecordingLogger {
  const lines: RecordingLogger['lines'] = []
  const at = (level: RecordingLogger['lines'][number]['level']) => (message: string) =>
    void lines.push({ level, message })
  return {
    lines,
    of: (level) => lines.filter((line) => line.level === level).map((line) => line.message),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
  }
}

/** A database with the schema `trunkline`, and one Trunkline that runs on it while the tests of the suite do. */
export interface Harness {
  readonly database: () => TestDatabase
  readonly trunkline: () => Trunkline
  readonly logger: RecordingLogger
  /** Runs statements one after the other, as the owner. */
  readonly run: (...statements: string[]) => Promise<void>
  /** Captures a table and opens a cache of it. */
  readonly cached: (
    table: string,
    options?: Parameters<Trunkline['cache']>[1],
    capture?: Parameters<Trunkline['capture']>[1],
  ) => Promise<Cache<AnyRow>>
}

export function useTrunkline(server: TestServer, options: Partial<TrunklineOptions> = {}): Harness {
  const database = useTrunklineDatabase(server)
  const logger = recordingLogger()
  let running: Trunkline | undefined
  beforeAll(async () => {
    running = createTrunkline({ url: database().url, logger, ...options })
    await running.start()
  })
  afterAll(async () => running?.stop())
  const trunkline = (): Trunkline => {
    if (running === undefined) throw new Error('trunkline runs only inside of tests and hooks.')
    return running
  }
  return {
    database,
    trunkline,
    logger,
    run: async (...statements) => {
      for (const statement of statements) await database().query(statement)
    },
    cached: async (table, cacheOptions, capture) => {
      await trunkline().capture(table, capture)
      return trunkline().cache<AnyRow>(table, cacheOptions)
    },
  }
}

/** Expects that the cache has exactly the rows of a SELECT through pg, whatever their order. */
export async function expectEqualToSelect(
  cache: Iterable<unknown>,
  database: { query(text: string): Promise<unknown[]> },
  select: string,
): Promise<void> {
  expectSameRows(cache, await database.query(select))
}

/** Compares as multisets; the message shows what only one side has. */
export function expectSameRows(found: Iterable<unknown>, expected: Iterable<unknown>): void {
  const [foundTexts, expectedTexts] = [texts(found), texts(expected)]
  if (isDeepStrictEqual(foundTexts, expectedTexts)) return
  const [onlyFound, onlyExpected] = [without(foundTexts, expectedTexts), without(expectedTexts, foundTexts)]
  expect.fail(
    `the cache has ${foundTexts.length} rows, the table ${expectedTexts.length}; ` +
      `only in the cache: ${onlyFound.slice(0, 5).join('; ')}; only in the table: ${onlyExpected.slice(0, 5).join('; ')}`,
  )
}

/** A row as text that tells apart whatever is not deeply and strictly equal: -0 from 0, a Date from its text. */
export function textOf(row: unknown): string {
  return inspect(row, {
    depth: Number.POSITIVE_INFINITY,
    maxArrayLength: null,
    maxStringLength: null,
    breakLength: Number.POSITIVE_INFINITY,
    compact: true,
    sorted: true,
  })
}

function texts(rows: Iterable<unknown>): string[] {
  return Array.from(rows, textOf).toSorted()
}

function without(some: readonly string[], others: readonly string[]): string[] {
  const counts = new Map<string, number>()
  for (const text of others) counts.set(text, (counts.get(text) ?? 0) + 1)
  return some.filter((text) => {
    const count = counts.get(text) ?? 0
    counts.set(text, count - 1)
    return count <= 0
  })
}

/**
 * Follows a cache by its change events alone, from what it had when the replica was made. Fails on an event that
 * contradicts what was told before.
 */
export class EventReplica {
  readonly #counts = new Map<string, number>()
  readonly problems: string[] = []
  /** Events heard. */
  heard = 0

  constructor(cache: Cache<AnyRow>) {
    for (const row of cache) this.#add(row, 1)
    cache.on('changes', (changes) => {
      // A swap of keys is told change by change: only the sum of a step must fit.
      for (const change of changes) this.#apply(change)
      for (const [text, count] of this.#counts) {
        if (count < 0) this.problems.push(`gone before it was there: ${text}`)
        if (count === 0) this.#counts.delete(text)
      }
    })
  }

  /** Expects that replaying the events led to what the cache has. */
  expectEqualTo(cache: Iterable<unknown>): void {
    expect(this.problems).toEqual([])
    const replayed = [...this.#counts].flatMap(([text, count]) => Array.from({ length: count }, () => text))
    expect(replayed.toSorted()).toEqual(texts(cache))
  }

  #apply(change: CacheChange<AnyRow>): void {
    this.heard += 1
    const { operation, old, new: after } = change
    const expected = old === undefined ? 'insert' : after === undefined ? 'delete' : 'update'
    if (operation !== expected) this.problems.push(`${operation} has old ${textOf(old)} and new ${textOf(after)}`)
    if (isDeepStrictEqual(old, after)) this.problems.push(`no change: ${textOf(old)}`)
    if (old !== undefined) this.#add(old, -1)
    if (after !== undefined) this.#add(after, 1)
  }

  #add(row: AnyRow, by: number): void {
    const text = textOf(row)
    this.#counts.set(text, (this.#counts.get(text) ?? 0) + by)
  }
}

/** The code of the TrunklineError that a call must end with. */
export async function codeOf(call: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof call === 'function' ? call() : call)
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string }
    return typeof code === 'string' ? code : `no code: ${message}`
  }
  return 'no error'
}
