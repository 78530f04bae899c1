import { type Connection, toQueryable } from '../adapters/index.ts'
import { InvalidInputError, shown, TrunklineError } from '../core/index.ts'
import { type Queryable, quoteIdentifier, sqlStateOf, toTrunklineError } from '../postgres/index.ts'

/** Messages that one step of cleaning forgets, at most. */
export const inboxCleanStep = 1_000

/** Makes consumers idempotent: each handles a message once, in the transaction that remembers it. */
export class Inbox {
  readonly #db: () => Queryable
  readonly #schema: string

  constructor(db: () => Queryable, schema: string) {
    this.#db = db
    this.#schema = schema
  }

  /**
   * Runs the handler unless the consumer has handled the message before. That it has is written in the caller's transaction:
   * what the handler writes with `tx` and the memory of it exist both or neither. A second transaction with the same message
   * waits for the first to end.
   *
   * @param consumer names who handles it: each consumer handles each message once.
   * @param messageId what the sender tells messages by (`Delivery.messageId`): a header of the broker, `webhook-id`.
   * @returns false: it was handled before, the handler did not run.
   * @throws what the handler throws; the message then counts as not handled, whatever becomes of the transaction.
   * InvalidInputError `no_transaction`: `tx` is in none (a pool, say). In REPEATABLE READ a message that was handled since the
   * transaction began fails with `sqlstate_40001`: run the transaction again.
   */
  async once(tx: Connection, consumer: string, messageId: string, handler: () => unknown): Promise<boolean> {
    const db = toQueryable(tx, 'inbox.once', 'invalid_argument')
    for (const [name, value] of Object.entries({ consumer, messageId })) {
      if (typeof value === 'string' && value !== '' && !value.includes('\0') && value.isWellFormed()) continue
      throw new InvalidInputError(
        `inbox.once: ${name} is ${shown(value)}, expected a text that is not empty, of whole characters.`,
        {
          code: 'invalid_argument',
          hint: 'The message id is what the sender sends as id: the header of the broker, or webhook-id.',
        },
      )
    }
    if (!(await this.#claim(db, consumer, messageId))) return false
    try {
      await handler()
    } catch (error) {
      // For a caller who catches it and commits what else he did. Where the transaction has failed, all of it goes anyway.
      await this.#forget(db, consumer, messageId).catch(() => undefined)
      throw error
    }
    return true
  }

  /**
   * Forgets messages that were handled longer ago than `installation.inbox_retention` (30 days), 1,000 at a time, until none
   * is left. A running Trunkline does one step a minute by itself. Returns how many.
   */
  async clean(signal?: AbortSignal): Promise<number> {
    const isWanted = (): boolean => signal?.aborted !== true
    let all = 0
    while (isWanted()) {
      const count = await this.cleanStep()
      all += count
      if (count < inboxCleanStep) break
    }
    return all
  }

  /** One step of `clean`. Returns how many were forgotten: `inboxCleanStep` when there may be more. */
  async cleanStep(): Promise<number> {
    const { rows } = await this.#db().query<{ count: number }>(
      `select ${quoteIdentifier(this.#schema)}.inbox_clean($1) as count`,
      [inboxCleanStep],
    )
    return rows[0]?.count ?? 0
  }

  async #claim(db: Queryable, consumer: string, messageId: string): Promise<boolean> {
    try {
      // Without parameters: only so does a statement outside of a transaction begin and run at one moment, which gives it away.
      const claim = `${quoteIdentifier(this.#schema)}.inbox_claim(${hexText(consumer)}, ${hexText(messageId)})`
      // A BEGIN that came in one message with this statement has its moment, too (`trunkline.write` sends it so): then it is asked
      // again, and only outside of a transaction is that moment the same again.
      const isOpening = 'transaction_timestamp() = statement_timestamp()'
      let { rows } = await db.query<{ is_new: boolean | null }>(
        `select case when ${isOpening} then null else ${claim} end as is_new`,
      )
      if (rows[0]?.is_new === null) ({ rows } = await db.query(`select ${claim} as is_new`))
      return rows[0]?.is_new === true
    } catch (error) {
      const state = sqlStateOf(error)
      if (state !== '3F000' && state !== '42883')
        throw toTrunklineError(error, `Claiming message ${shown(messageId)} for ${consumer}`)
      throw new TrunklineError(`Claiming a message: schema "${this.#schema}" has no inbox.`, {
        code: 'schema_missing',
        hint: 'Run: trunkline migrate (or call migrate()) as the owner of the schema.',
        details: { schema: this.#schema },
        cause: error,
      })
    }
  }

  async #forget(db: Queryable, consumer: string, messageId: string): Promise<void> {
    await db.query(`select ${quoteIdentifier(this.#schema)}.inbox_forget($1::text, $2::text)`, [consumer, messageId])
  }
}

/** A text as SQL that holds nothing but digits of it. */
function hexText(text: string): string {
  return `convert_from('\\x${Buffer.from(text).toString('hex')}', 'UTF8')`
}
