import { TrunklineError } from '../core/index.ts'
import { parseSnapshot, type Queryable, type Snapshot, sqlStateOf } from '../postgres/index.ts'
import type { Change } from './change.ts'
import { checkIdentity, emptySnapshot, formatPosition, parsePosition, type Position } from './position.ts'
import { ChangeDecoder, type Decoding } from './reader-decoder.ts'
import { readerError } from './reader-errors.ts'
import { readHead } from './reader-head.ts'
import { fetchPage, type Page, type PageRow } from './reader-page.ts'
import { resolveTopics, type TopicSelection } from './reader-topics.ts'

/** Default of `pageRowsMax`. */
const pageRowsDefault = 1_000
/** Default of `pageBytesMax`: 8 MiB. */
const pageBytesDefault = 8 * 1024 * 1024

export interface LogReaderOptions {
  /** Schema of the installation. Default `trunkline`. */
  readonly schema?: string | undefined
  /**
   * `beginning`: everything that is still in the log; `now`: what commits from here on; or the position of a batch or change
   * read before.
   */
  readonly from: string
  /**
   * Captured tables, as in SQL; one that is dropped, made anew under its name and captured goes on. Neither tables nor topics:
   * everything, also what appears later.
   */
  readonly tables?: readonly string[] | undefined
  /** Topics of events; the topic of a captured table is its `schema.table`. */
  readonly topics?: readonly string[] | undefined
  /** In place of both: `selection` of a reader that was opened before, whatever the names of its tables are by now. */
  readonly selection?: TopicSelection | undefined
  /**
   * `typed` (default): `old` and `new` hold what a SELECT of the table's columns through the same driver gives. `json`: what
   * their JSON holds, with every digit (int8 and numeric are strings); it also reads tables that were dropped.
   */
  readonly decoding?: Decoding | undefined
  /** Changes in a batch, at most. Default 1,000. More costs memory, fewer costs round trips. */
  readonly pageRowsMax?: number | undefined
  /** Bytes of images and payloads after which a batch ends; it holds one change at least. Default 8 MiB. */
  readonly pageBytesMax?: number | undefined
}

export interface Batch {
  readonly changes: readonly Change[]
  /** Reading from here gives what comes after the batch. */
  readonly position: string
  /** No transaction is cut: the batch ends a step from one snapshot to the next. */
  readonly complete: boolean
  /** Everything that had committed when the batch was asked for has been read. */
  readonly level: boolean
}

/**
 * Reads the log from snapshot to snapshot: a step gives what the second snapshot sees and the first does not, in the order
 * of ids. So nothing is lost, doubled or split, changes of one key come in the order in which their writers held it, and no
 * transaction waits for another (docs/log.md, "Reading").
 *
 * It keeps no state in the database and none in the session: a pool or a pooler in transaction mode will do. After a failed
 * call the same call may be made again. One call at a time.
 */
export class LogReader {
  readonly #queryable: Queryable
  readonly #decoder: ChangeDecoder
  readonly #pageRowsMax: number
  readonly #pageBytesMax: number
  #position: Position
  /** Lower than the maximum for a while after a row that could not be decoded. */
  #rowsMax: number
  #isBusy = false

  private constructor(queryable: Queryable, decoder: ChangeDecoder, at: Position, options: LogReaderOptions) {
    this.#queryable = queryable
    this.#decoder = decoder
    this.#position = at
    this.#pageRowsMax = options.pageRowsMax ?? pageRowsDefault
    this.#pageBytesMax = options.pageBytesMax ?? pageBytesDefault
    this.#rowsMax = this.#pageRowsMax
  }

  /**
   * Takes a place in the log. `now` is the moment of this call.
   *
   * @throws `invalid_position`, `position_of_another_log`, `unknown_table`, `not_captured`, `not_installed`, `standby`.
   */
  static async open(queryable: Queryable, options: LogReaderOptions): Promise<LogReader> {
    const schema = options.schema ?? 'trunkline'
    const given = options.from === 'now' || options.from === 'beginning' ? undefined : parsePosition(options.from)
    try {
      const head = await readHead(queryable, schema)
      if (given !== undefined) checkIdentity(given, head.identity)
      const from = options.from === 'now' ? head.snapshot : emptySnapshot
      const selection = options.selection ?? (await resolveTopics(queryable, schema, options))
      const decoder = new ChangeDecoder(queryable, schema, options.decoding ?? 'typed', selection)
      return new LogReader(queryable, decoder, given ?? { identity: head.identity, from }, options)
    } catch (error) {
      throw readerError(error, schema)
    }
  }

  /** Reading from here gives what this reader would give next. */
  get position(): string {
    return formatPosition(this.#position)
  }

  /** What it reads; undefined: all. */
  get selection(): TopicSelection | undefined {
    return this.#decoder.selection
  }

  /** What has been read: everything that this snapshot sees (and inside of a step, the beginning of what comes after it). */
  get snapshot(): Snapshot {
    return this.#position.from
  }

  /**
   * The next changes. Without any (`changes` is empty) there is nothing to read at present.
   *
   * @throws `position_lost`: rotation has removed rows behind the position. `position_of_another_log`: fail-over, restore.
   */
  async next(): Promise<Batch> {
    return this.#exclusively(async () => {
      for (;;) {
        const batch = await this.#nextPage()
        if (batch.changes.length > 0 || batch.level) return batch
      }
    })
  }

  /** The next changes in whole transactions, which may be large: all of them are held in memory at once. */
  async nextWhole(): Promise<Batch> {
    return this.#exclusively(async () => {
      const before = this.#position
      const changes: Change[] = []
      try {
        for (;;) {
          const batch = await this.#nextPage()
          for (const change of batch.changes) changes.push(change)
          if (batch.complete && (changes.length > 0 || batch.level)) return { ...batch, changes }
        }
      } catch (error) {
        this.#position = before
        throw error
      }
    })
  }

  async #exclusively(action: () => Promise<Batch>): Promise<Batch> {
    if (this.#isBusy)
      throw new TrunklineError('The reader is asked for the next changes while it reads.', { code: 'reader_busy' })
    this.#isBusy = true
    try {
      return await action()
    } catch (error) {
      throw readerError(error, this.#decoder.schema)
    } finally {
      this.#isBusy = false
    }
  }

  async #nextPage(): Promise<Batch> {
    const { from } = this.#position
    const page = await this.#readPage()
    checkIdentity(this.#position, page.end.identity)
    if (page.end.lost) throw lostPosition(this.position)
    const to = parseSnapshot(page.end.target)
    const stem = formatPosition({ ...this.#position, to, afterId: 0n }).slice(0, -1)
    const changes = page.rows.map((row) => this.#decoder.decode(row, `${stem}${row.id}`))
    const last = page.rows.at(-1)
    const { identity } = this.#position
    this.#position =
      page.end.complete || last === undefined
        ? { identity, from: to }
        : { identity, from, to, afterId: BigInt(last.id) }
    this.#rowsMax = Math.min(this.#pageRowsMax, this.#rowsMax * 2)
    return { changes, position: this.position, complete: page.end.complete, level: page.end.complete && page.end.level }
  }

  /** The next page, by descriptions of the tables that are those of its moment. */
  async #readPage(): Promise<Page> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const page = await this.#fetch(this.#rowsMax)
        const isGood = await this.#decoder.agree(page.end.topics ?? {})
        if (isGood || attempt === attemptsMax) return page
      } catch (error) {
        const state = sqlStateOf(error) ?? ''
        if (state === deadlockState && attempt < attemptsMax) continue
        if (renamedStates.has(state) && attempt < attemptsMax) await this.#decoder.describeAnew()
        else if (this.#decoder.decoding === 'typed' && undecodableStates.test(state)) return this.#readUndecodable()
        else throw error
      }
    }
  }

  /**
   * Some row of the page does not fit its table as it is now (a column was retyped, a domain or enum changed). Pages are
   * halved until one row is left, which is then given as a `resync` of its table.
   */
  async #readUndecodable(): Promise<Page> {
    if (this.#rowsMax > 1) {
      this.#rowsMax = Math.ceil(this.#rowsMax / 2)
      return this.#readPage()
    }
    const page = await this.#fetch(1, 'json')
    return { ...page, rows: page.rows.map(asResync) }
  }

  async #fetch(rowsMax: number, decoding?: Decoding): Promise<Page> {
    const { from, to, afterId = 0n } = this.#position
    return fetchPage(this.#queryable, await this.#decoder.statement(decoding), {
      from,
      to,
      afterId,
      topics: this.#decoder.selection,
      rowsMax,
      bytesMax: this.#pageBytesMax,
    })
  }
}

/** How often a page is read again because DDL changed a table meanwhile. */
const attemptsMax = 5

/** Undefined column, table, object; no such schema: a table is not what it was described as. */
const renamedStates = new Set(['42703', '42P01', '42704', '3F000', '42804'])
/**
 * Reading a row type's columns may queue for a table's lock, and a server that looks for deadlocks among writers may find the
 * reader in the queue. Nothing was held: read again.
 */
const deadlockState = '40P01'
/** Data that a type refuses, and conditions of domains. */
const undecodableStates = /^22|^23(?:502|514)$/

function asResync(row: PageRow): PageRow {
  return { ...row, operation: 'x', old: null, new: null, has_old: false, has_new: false, key_image: null }
}

function lostPosition(position: string): TrunklineError {
  return new TrunklineError(
    'The log no longer reaches back to the position: rows behind it were removed by rotation.',
    {
      code: 'position_lost',
      hint: 'Start anew: copy the tables afresh and read from "now", or read from "beginning" and do without what is gone.',
      details: { position },
    },
  )
}
