import pg, { type ClientConfig, type QueryArrayResult } from 'pg'
import { ConnectionError, messageOf, pause } from '../core/index.ts'
import { checkServerVersion, guardAgainstHugeValues, isConnectionFailure, withDefaults } from '../postgres/index.ts'

/** Longest time one round of reading may take, in milliseconds; then the connection counts as stalled. */
export const roundTimeoutMs = 10_000

/**
 * One connection that is used by one reader, statement after statement, each a simple query that may hold several
 * statements: one round trip, and no state that a pooler could mix up. A failure closes it; `connect` makes a new one.
 */
export class Session {
  readonly #config: () => ClientConfig
  #client: pg.Client | undefined
  #failure: Error | undefined
  #last: Promise<unknown> = Promise.resolve()

  /** `config`: asked for at each connect. */
  constructor(config: () => ClientConfig, applicationName: string) {
    this.#config = () => withDefaults({ ...config(), application_name: applicationName })
  }

  get isConnected(): boolean {
    return this.#client !== undefined && this.#failure === undefined
  }

  /** Process id of the backend, for tests and doctor; undefined without a connection. */
  get backendPid(): number | undefined {
    const client: (pg.Client & { processID?: number }) | undefined = this.#client
    return client?.processID
  }

  async connect(): Promise<void> {
    await this.close()
    const client = new pg.Client(this.#config())
    this.#client = client
    this.#failure = undefined
    const fail = (error: Error): void => {
      if (this.#client === client) this.#failure ??= error
    }
    client.on('error', fail)
    client.on('end', () => fail(new Error('the server closed the connection')))
    try {
      await client.connect()
      guardAgainstHugeValues(client)
      const version = await this.query('show server_version_num')
      checkServerVersion(Number(version[0]?.rows[0]?.[0]))
    } catch (error) {
      await this.close()
      throw error
    }
  }

  /**
   * Runs one or more statements and gives a result for each. A connection that failed or did not answer in time is closed,
   * which leaves nothing running on it that could confuse the next round. Calls are run one after the other.
   */
  async query(text: string, timeoutMs: number = roundTimeoutMs): Promise<QueryArrayResult<unknown[]>[]> {
    const result = this.#last.then(() => this.#run(text, timeoutMs))
    this.#last = result.catch(() => undefined)
    return result
  }

  async #run(text: string, timeoutMs: number): Promise<QueryArrayResult<unknown[]>[]> {
    const client = this.#client
    if (client === undefined || this.#failure !== undefined) {
      throw new ConnectionError(`Not connected: ${messageOf(this.#failure ?? 'no connection')}.`, {
        code: 'connection_failed',
        retryable: true,
      })
    }
    try {
      const results: unknown = await client.query({
        text,
        rowMode: 'array',
        query_timeout: timeoutMs,
      } as pg.QueryArrayConfig)
      return (Array.isArray(results) ? results : [results]) as QueryArrayResult<unknown[]>[]
    } catch (error) {
      if (isConnectionFailure(error)) await this.close()
      // The driver's only mark of its own time-out is the text.
      if (!(error instanceof Error) || error.message !== 'Query read timeout') throw error
      throw new ConnectionError(`The server did not answer within ${timeoutMs} ms.`, {
        code: 'timed_out',
        retryable: true,
        cause: error,
      })
    }
  }

  async close(): Promise<void> {
    const client = this.#client
    this.#client = undefined
    if (client === undefined) return
    const ended = client.end().catch(() => undefined)
    await Promise.race([ended, pause(500)])
    const { connection } = client as unknown as { connection?: { stream?: { destroy?: () => void } } }
    connection?.stream?.destroy?.()
  }
}
