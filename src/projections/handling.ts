import { InvalidInputError, withTimeout } from '../core/index.ts'
import type { EventStore, RecordedEvent } from '../events/index.ts'
import type { Queryable } from '../postgres/index.ts'
import { ProjectionError, transactionEnded } from './errors.ts'
import { HandlerConnection } from './handler-connection.ts'
import type { HandlerContext, ProjectionHandler } from './handler.ts'
import type { Definition } from './projection-options.ts'
import { type TableName, tableName } from './table-name.ts'

/** A stored event, and what it is today: none, one or several. */
export interface OpenedEvent {
  readonly stored: RecordedEvent
  readonly events: readonly RecordedEvent[]
}

/** Opens stored events: one look at the keys for all of them. */
export async function openEvents(
  store: EventStore,
  stored: readonly RecordedEvent[],
  db: Queryable,
): Promise<OpenedEvent[]> {
  const opened = new Map<string, RecordedEvent[]>(stored.map(({ position }) => [position, []]))
  for (const event of await store.open(stored, db)) opened.get(event.position)?.push(event)
  return stored.map((event) => ({ stored: event, events: opened.get(event.position) ?? [] }))
}

interface HandlingOptions {
  readonly definition: Definition
  /** How a table is called for these handlers. */
  readonly nameOf: (table: TableName) => string
  /** Up to here events are replayed. */
  readonly replayUntil: bigint
  /** Milliseconds a handler may take; undefined: as long as it likes. */
  readonly timeoutMs: number | undefined
  readonly signal: AbortSignal
}

/** Runs handlers in one transaction. */
export class Handling {
  readonly #db: Queryable
  readonly #options: HandlingOptions
  readonly #connection: HandlerConnection

  constructor(db: Queryable, options: HandlingOptions) {
    this.#db = db
    this.#options = options
    this.#connection = new HandlerConnection(db)
  }

  /** After it no handler can use the connection any more. */
  end(): void {
    this.#connection.close()
  }

  /** @throws ProjectionError. */
  async handle({ stored, events }: OpenedEvent): Promise<void> {
    const { definition, timeoutMs } = this.#options
    for (const event of events) {
      const handler = definition.handlers.get(event.type)
      if (handler === undefined) continue
      try {
        // Whoever is told to end begins nothing: a handler that only listens for the signal would never hear of it.
        this.#options.signal.throwIfAborted()
        if (timeoutMs === undefined) await handler(event as never, this.#contextOf(stored, this.#options.signal))
        else await this.#within(timeoutMs, handler, event, stored)
        await this.#checkTransaction(event)
      } catch (error) {
        throw error instanceof ProjectionError ? error : new ProjectionError(definition.name, event, { cause: error })
      }
    }
  }

  /** What a handler swallows would be the next one's error, or be lost in COMMIT, which then rolls back without a word. */
  async #checkTransaction(event: RecordedEvent): Promise<void> {
    // A statement fails before the driver has heard what became of the transaction: another one tells.
    const cause = this.#connection.takeFailure() ? await this.#aborted() : undefined
    const status = transactionStatus(this.#db)
    const { name } = this.#options.definition
    if (status === 'I') throw new ProjectionError(name, event, transactionEnded)
    if (cause === undefined && status !== 'E') return
    throw new ProjectionError(name, event, {
      cause,
      found: 'a statement of its handler failed, and the handler has kept it to itself.',
      hint: 'Let it throw, or use a savepoint: the transaction has failed.',
    })
  }

  /** What an aborted transaction answers to any statement. */
  async #aborted(): Promise<unknown> {
    try {
      await this.#db.query('select')
      return undefined
    } catch (error) {
      return error
    }
  }

  async #within(
    timeoutMs: number,
    handler: ProjectionHandler<never>,
    event: RecordedEvent,
    stored: RecordedEvent,
  ): Promise<void> {
    const ending = new AbortController()
    const signal = AbortSignal.any([this.#options.signal, ending.signal])
    const running = (async () => handler(event as never, this.#contextOf(stored, signal)))()
    try {
      await withTimeout(running, timeoutMs, () => {
        ending.abort()
        return new ProjectionError(this.#options.definition.name, event, {
          code: 'handler_timeout',
          found: `its handler has not ended after ${timeoutMs} ms.`,
          hint: 'Make it quicker, or raise handlerTimeoutMs.',
        })
      })
    } finally {
      // What comes of it later is nobody's business.
      running.catch(() => undefined)
    }
  }

  #contextOf({ position }: RecordedEvent, signal: AbortSignal): HandlerContext {
    const { definition, replayUntil, nameOf } = this.#options
    return {
      query: async (text, values) => this.#connection.query(text, values),
      tx: this.#connection,
      table: (name) => nameOf(declared(definition, name)),
      isReplay: BigInt(position) <= replayUntil,
      projection: definition.name,
      version: definition.version,
      signal,
    }
  }
}

type Status = 'I' | 'T' | 'E'

/** I: in none, T: in one, E: in one that has failed. Undefined: the driver does not tell. */
export function transactionStatus(db: Queryable): Status | undefined {
  const { getTransactionStatus } = db as { getTransactionStatus?: () => Status | null }
  return getTransactionStatus?.call(db) ?? undefined
}

function declared(definition: Definition, name: string): TableName {
  const tables = definition.tables ?? []
  const found =
    tables.find(({ table }) => table.given === name) ?? tables.find(({ table }) => table.sql === tableName(name).sql)
  if (found !== undefined) return found.table
  throw new InvalidInputError(`Projection "${definition.name}" has no table ${JSON.stringify(name)}.`, {
    code: 'unknown_table',
    hint:
      tables.length === 0
        ? 'Declare it: tables: { name: (table) => SQL }.'
        : `Declared: ${tables.map(({ table }) => table.given).join(', ')}.`,
  })
}
