import { randomUUID } from 'node:crypto'
import { InvalidInputError, jsonText, TrunklineError } from '../core/index.ts'
import { eventError, type EventStore, type NewEvent, type RecordedEvent, streamParts } from '../events/index.ts'
import { type Queryable, quoteIdentifier, sqlStateOf } from '../postgres/index.ts'
import { ProjectionError } from './errors.ts'
import { Handling, openEvents, transactionStatus } from './handling.ts'
import type { Definition } from './projection-options.ts'
import { projectionStoreError } from './projection-store.ts'
import { tableNameOf } from './tables.ts'

/** What an append has found at the gate: the projections it is to run. */
interface Entered {
  readonly live: readonly { readonly definition: Definition; readonly replayUntil: bigint }[]
}

interface GateRow extends Record<string, unknown> {
  readonly projection: string
  readonly version: number | null
  readonly mode: 'inline' | 'async' | null
  readonly replayUntil: string | null
  readonly keepsSnapshot: boolean
}

/** Runs the inline projections of a process in its appends: an extension of the event store (docs/projections.md, P1, P3, P15). */
export class InlineProjections {
  readonly #events: EventStore
  readonly #schema: string
  readonly #running = new Set<Definition>()
  readonly #entered = new WeakMap<Queryable, Entered>()
  readonly #never = new AbortController()
  #isAdded = false

  constructor(events: EventStore, schema: string) {
    this.#events = events
    this.#schema = schema
  }

  /** From now on appends run it, as soon as it is live. */
  add(definition: Definition): void {
    this.#running.add(definition)
    if (this.#isAdded) return
    this.#isAdded = true
    this.#events.use({
      isWanted: (stream) => this.#wanted(stream).length > 0,
      beforeWrite: (events, stream, tx) => this.#enter(events, stream, tx),
      inTransaction: (tx, recorded) => this.#handle(tx, recorded),
    })
  }

  remove(definition: Definition): void {
    this.#running.delete(definition)
  }

  #wanted(stream: string): Definition[] {
    if (this.#running.size === 0) return []
    const { type } = streamParts(stream)
    return [...this.#running].filter(({ categories }) => categories?.includes(type) !== false)
  }

  /** Before the events get their positions: a swap that comes now waits for them. */
  async #enter(events: readonly NewEvent[], stream: string, tx: Queryable): Promise<readonly NewEvent[]> {
    const wanted = this.#wanted(stream)
    this.#entered.delete(tx)
    if (wanted.length === 0) return events
    const found = await this.#look(tx, stream, wanted)
    const live = wanted.flatMap((definition) => {
      const row = found.get(definition.name)
      // It is still being made: the swap sees these events, for it waits for whoever has entered before it.
      if (row?.version === undefined || row.version === null) {
        if (row?.keepsSnapshot === true) throw moved(definition, stream)
        return []
      }
      if (row.mode !== 'inline') return []
      if (row.version !== definition.version) throw otherVersion(definition, row.version, stream)
      return [{ definition, replayUntil: BigInt(row.replayUntil ?? 0) }]
    })
    if (live.length > 0) this.#entered.set(tx, { live })
    return events
  }

  async #look(tx: Queryable, stream: string, wanted: readonly Definition[]): Promise<Map<string, GateRow>> {
    const token = randomUUID()
    try {
      const { rows } = await tx.query<GateRow>(
        `select g.projection, g.version, g.mode, g.replay_until::text as "replayUntil", g.is_snapshot as "keepsSnapshot"
         from ${quoteIdentifier(this.#schema)}.projection_enter(array(select json_array_elements_text($1::text::json)), $2) as g`,
        [JSON.stringify(wanted.map(({ name }) => name)), token],
      )
      await this.#checkTransaction(tx, stream, token)
      return new Map(rows.map((row) => [row.projection, row]))
    } catch (error) {
      const [definition] = wanted
      if (sqlStateOf(error) === '40001' && definition !== undefined) throw moved(definition, stream, error)
      throw projectionStoreError(error, `Appending to ${stream}`, this.#schema)
    }
  }

  /** Without a transaction the append would be committed before its handlers run. */
  async #checkTransaction(tx: Queryable, stream: string, token: string): Promise<void> {
    const status = transactionStatus(tx)
    if (status === 'T') return
    // A driver that does not tell: what was set for the transaction is there still, if there is one.
    const text = `select current_setting('trunkline.inline', true) as token`
    if (status === undefined && (await tx.query<{ token: string | null }>(text)).rows[0]?.token === token) return
    throw new InvalidInputError(`Appending to ${stream}: tx is in no transaction, and inline projections need one.`, {
      code: 'no_transaction',
      hint: 'Pass a client on which a transaction was begun, or leave tx out.',
    })
  }

  async #handle(tx: Queryable, recorded: readonly RecordedEvent[]): Promise<void> {
    const entered = this.#entered.get(tx)
    this.#entered.delete(tx)
    if (entered === undefined) return
    try {
      // As they will be read: what JSON leaves out is gone, personal data is opened.
      const stored = recorded.map((event) => ({
        ...event,
        payload: jsonCopy('payload', event.payload),
        metadata: jsonCopy('metadata', event.metadata) as RecordedEvent['metadata'],
      }))
      const opened = await openEvents(this.#events, stored, tx)
      for (const { definition, replayUntil } of entered.live) {
        const handling = new Handling(tx, {
          definition,
          nameOf: tableNameOf({ build: '', state: 'live' }),
          replayUntil,
          timeoutMs: undefined,
          signal: this.#never.signal,
        })
        try {
          for (const event of opened) await handling.handle(event)
        } finally {
          handling.end()
        }
      }
      // A driver that does not tell whether a statement has failed unheard is asked for another one.
      if (transactionStatus(tx) === undefined) await tx.query('select')
    } catch (error) {
      // The caller may catch it and commit: then nothing of the append must be there.
      await this.#fail(tx, error)
      const cause = error instanceof ProjectionError ? error.cause : error
      throw sqlStateOf(cause) === '40P01' ? eventError(cause, 'Running an inline projection', this.#schema) : error
    }
  }

  async #fail(tx: Queryable, error: unknown): Promise<void> {
    const reason = error instanceof Error ? error.message.slice(0, 1_000).replaceAll('\0', '') : 'a handler failed'
    // It fails, that is its purpose.
    await tx
      .query(`select ${quoteIdentifier(this.#schema)}.projection_fail($1)`, [reason])
      .then(undefined, () => undefined)
  }
}

function jsonCopy(name: string, value: unknown): unknown {
  return JSON.parse(jsonText(name, value))
}

/** The transaction's snapshot is older than what is live. */
function moved({ name }: Definition, stream: string, cause?: unknown): TrunklineError {
  return new TrunklineError(
    `Appending to ${stream}: the transaction began before inline projection "${name}" was as it is now.`,
    {
      code: 'projection_moved',
      retryable: true,
      hint: 'Run the transaction again.',
      details: { projection: name, stream },
      cause,
    },
  )
}

function otherVersion({ name, version }: Definition, live: number, stream: string): TrunklineError {
  return new TrunklineError(
    `Appending to ${stream}: version ${live} of inline projection "${name}" is live, and this process has version ${version}.`,
    {
      code: 'projection_version',
      hint: version < live ? 'Run the release that has it.' : 'It is being rebuilt: append when start() has resolved.',
      details: { projection: name, stream, live, version },
    },
  )
}
