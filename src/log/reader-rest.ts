import type { ClientConfig } from 'pg'
import { type Logger, messageOf, Service } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { Listener } from './listener.ts'
import { Rest } from './rest.ts'
import { Session } from './session.ts'
import { WakeUp, type WritersRoutine } from './wake-up.ts'

/** Locks that one reader sleeps on at most; writers of further topics do not wake it, the poll finds them. */
const wakeKeysMax = 100

export interface ReaderRestOptions {
  readonly schema: string
  readonly queryable: Queryable
  /** A direct connection for LISTEN, asked for at each connect; false: poll only. */
  readonly config: ClientConfig | false
  /** Ids of the topics that are read; undefined: all. */
  readonly topicIds: readonly string[] | undefined
  /** Lists the open writers of what is read. Default: those of the log. */
  readonly writers?: WritersRoutine | undefined
  /** Milliseconds between looks where nobody wakes it. */
  readonly pollIntervalMs: number
  /** Milliseconds of rest after changes: under load, writers notify nobody meanwhile. */
  readonly minIntervalMs: number
  readonly logger: Logger
}

interface Installation {
  readonly lock_class: string
  readonly channel: string
}

/**
 * When a reader that is level looks again: woken by a commit where LISTEN works, else by polling. After each look that left
 * nothing to read: `await rest.after(hasChanged)`, then look again.
 */
export class ReaderRest extends Service {
  readonly #options: ReaderRestOptions
  readonly #session: Session
  readonly #wakeUp: WakeUp
  readonly #rest: Rest
  #listener: Listener | undefined
  #lockClass = 0
  #wakeKeys: readonly number[] = []

  constructor(options: ReaderRestOptions) {
    super()
    this.#options = options
    this.#session = new Session(() => this.#config, 'trunkline read')
    this.#wakeUp = new WakeUp(options.schema, options.writers)
    const { pollIntervalMs, minIntervalMs } = options
    this.#rest = new Rest({ session: this.#session, wakeUp: this.#wakeUp, pollIntervalMs, minIntervalMs })
  }

  /** How new commits are learnt of. */
  get mode(): 'listen' | 'poll' {
    return this.#listener?.isUp === true ? 'listen' : 'poll'
  }

  /** True while it waits for nothing but a notification or the poll interval: for tests. */
  get isAsleep(): boolean {
    return this.#rest.isAsleep
  }

  get #config(): ClientConfig {
    const { config } = this.#options
    return config === false ? {} : config
  }

  /** The log is somewhere else now: closes its connections, so that they are made anew. */
  reconnect(): void {
    void this.#session.close()
    this.#listener?.reconnect()
    this.#rest.demand()
  }

  /** Ends the rest under way. */
  wake(): void {
    this.#rest.demand()
  }

  /** Resolves when it makes sense to look again. `hasChanged`: the last look found something. */
  async after(hasChanged: boolean): Promise<void> {
    const { schema, queryable, topicIds, logger, pollIntervalMs } = this.#options
    try {
      const isListening = await this.#isReady()
      if (!hasChanged && isListening && !this.#wakeUp.isAsleep)
        this.#wakeKeys = await readWakeKeys(queryable, schema, topicIds)
      await this.#rest.after({
        hasChanged,
        roundMs: 0,
        isListening,
        lockClass: this.#lockClass,
        wakeKeys: this.#wakeKeys,
      })
      // Here, and not before the rest: what came during the look before it is news.
      this.#rest.beginRound()
    } catch (error) {
      logger.debug(`Waiting for a notification failed, polling instead: ${messageOf(error)}`)
      this.#wakeUp.forget()
      await this.#session.close()
      await this.#rest.retryAfter(pollIntervalMs)
    }
  }

  protected async onStart(): Promise<void> {
    const { schema, queryable, logger } = this.#options
    if (this.#options.config === false) return
    const { rows } = await queryable.query<Installation & Record<string, string>>(
      `select i.lock_class::text, i.channel from ${quoteIdentifier(schema)}.installation as i`,
    )
    const [installation] = rows
    if (installation === undefined) return
    this.#lockClass = Number(installation.lock_class)
    this.#listener = new Listener({
      config: () => this.#config,
      channel: installation.channel,
      logger,
      notify: async (channel, payload) => {
        await queryable.query('select pg_notify($1, $2)', [channel, payload])
      },
      onNotification: () => this.#rest.notify(),
      onUp: () => this.#rest.miss(),
      onDown: () => this.#rest.miss(),
    })
    await this.#listener.start()
  }

  protected async onStop(): Promise<void> {
    this.#rest.demand()
    await this.#listener?.stop()
    this.#listener = undefined
    await this.#session.close()
    this.#wakeUp.forget()
  }

  /** True when notifications arrive and there is a session of our own to hold locks with. */
  async #isReady(): Promise<boolean> {
    if (this.mode === 'poll') return false
    if (!this.#session.isConnected) {
      this.#wakeUp.forget()
      await this.#session.connect()
    }
    return true
  }
}

async function readWakeKeys(
  queryable: Queryable,
  schema: string,
  topicIds: readonly string[] | undefined,
): Promise<number[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await queryable.query<{ key: number }>(
    `select distinct ${s}.wake_key(t.id) as key
     from (select k.id from ${s}.topic as k where $1::bigint[] is null union select unnest($1::bigint[])) as t (id)
     order by 1 limit ${wakeKeysMax}`,
    [topicIds ?? null],
  )
  return rows.map((row) => row.key)
}
