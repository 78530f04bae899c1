import type { EventEmitter } from 'node:events'
import { connect, type Socket } from 'node:net'
import pg, { type ClientBase, type QueryConfig, type QueryResult } from 'pg'
import { ConnectionError } from '../core/index.ts'

/** What of pg's connection a query of our own touches. Custom queries are an extension point of pg (`Submittable`). */
interface WireConnection {
  readonly stream: Socket
  readonly parsedStatements: Record<string, string | undefined>
  readonly submittedNamedStatements: Record<string, string | undefined>
  parse(message: { text: string; name: string; types: undefined }): void
  bind(message: { portal: string; statement: string; values: readonly unknown[] }): void
  execute(message: { portal: string; rows: number }): void
  query(text: string): void
}

/** What pg's Query does with the server's messages; its type declarations leave this out. */
interface WireQuery extends EventEmitter {
  text: string
  name: string | undefined
  callback: ((error: Error | null, result?: unknown) => void) | undefined
  requiresPreparation(): boolean
  prepare(connection: WireConnection): void
  submit(connection: WireConnection): Error | null
  handleCommandComplete(message: { readonly text: string }, connection: WireConnection): void
  handleError(error: Error, connection: WireConnection): void
}

/** As pg writes a value; what it gives stays as it is when converted again. */
const { prepareValue } = (pg as unknown as { utils: { prepareValue: (this: void, value: unknown) => unknown } }).utils

const Query = pg.Query as unknown as new (config: QueryConfig & { queryMode?: string }) => WireQuery

/**
 * A statement and what must run before it in the same transaction (BEGIN, SET LOCAL), in one flush and with one Sync: one
 * round trip, and the server skips all that follows the first error, so that the statement never runs outside of its
 * transaction. With values it is the extended protocol, without the simple one, as pg would have sent the statement alone.
 */
class OpeningQuery extends Query {
  readonly #prelude: readonly string[]
  readonly #statementName: string | undefined
  #preludeLeft: number
  /** Characters in front of the statement, for the position that an error tells. */
  #shift = 0
  wasSent = false

  constructor(prelude: readonly string[], config: QueryConfig) {
    super(config)
    this.#prelude = prelude
    this.#preludeLeft = prelude.length
    this.#statementName = this.name
  }

  override submit(connection: WireConnection): Error | null {
    if (!this.requiresPreparation()) {
      const before = `${this.#prelude.join('; ')}; `
      this.#shift = Array.from(before).length
      this.wasSent = true
      connection.query(before + this.text)
      return null
    }
    const name = this.#statementName ?? ''
    const previous = connection.parsedStatements[name] ?? connection.submittedNamedStatements[name]
    if (name !== '' && previous !== undefined && previous !== this.text) {
      // pg's own check, made before anything is sent.
      return new Error(`Prepared statements must be unique - '${name}' was used for a different statement`)
    }
    this.wasSent = true
    connection.stream.cork()
    try {
      for (const text of this.#prelude) {
        connection.parse({ text, name: '', types: undefined })
        connection.bind({ portal: '', statement: '', values: [] })
        connection.execute({ portal: '', rows: 0 })
      }
      const error = super.submit(connection)
      // pg notes at each ParseComplete that the query's named statement exists; the first ones are those of the prelude.
      this.name = undefined
      return error
    } finally {
      connection.stream.uncork()
    }
  }

  override handleCommandComplete(message: { readonly text: string }, connection: WireConnection): void {
    if (this.#preludeLeft === 0) {
      super.handleCommandComplete(message, connection)
      return
    }
    this.#preludeLeft -= 1
    if (this.#preludeLeft === 0) this.name = this.#statementName
  }

  /** The server has carried out all that comes before the statement. */
  get hasBegun(): boolean {
    return this.#preludeLeft === 0
  }

  override handleError(error: Error & { position?: string }, connection: WireConnection): void {
    if (this.#statementName !== undefined) delete connection.submittedNamedStatements[this.#statementName]
    if (this.#shift > 0 && error.position !== undefined) error.position = String(Number(error.position) - this.#shift)
    super.handleError(error, connection)
  }
}

/** Several statements in one simple message, of which it is kept which ones were answered when a later one fails. */
class TaggedQuery extends Query {
  readonly tags: string[] = []

  override handleCommandComplete(message: { readonly text: string }, connection: WireConnection): void {
    this.tags.push(message.text)
    super.handleCommandComplete(message, connection)
  }
}

/** What became of a statement and of what was sent before it. */
export interface OpeningOutcome {
  readonly result: QueryResult | undefined
  readonly error: Error | undefined
  /** False: BEGIN or an option of it was not carried out, and nothing after it. */
  readonly hasBegun: boolean
  /** False: the connection is as it was before. */
  readonly wasSent: boolean
}

/** Runs a statement together with what must run before it. Never throws. */
export async function queryAfter(
  client: ClientBase,
  prelude: readonly string[],
  config: QueryConfig,
): Promise<OpeningOutcome> {
  // What pg's Query would refuse after our messages were sent.
  const isFine = typeof config.text === 'string' && (config.values === undefined || Array.isArray(config.values))
  if (!isFine) {
    const error = new TypeError('A query must have a text, and its values must be an array.')
    return { result: undefined, error, hasBegun: false, wasSent: false }
  }
  let query: OpeningQuery
  try {
    // pg converts values while it writes its messages: by then BEGIN would be on its way, and only the client would know of the error.
    const { values } = config
    query = new OpeningQuery(prelude, values === undefined ? config : { ...config, values: values.map(prepareValue) })
  } catch (error) {
    return { result: undefined, error: error as Error, hasBegun: false, wasSent: false }
  }
  try {
    return { result: (await submit(client, query)) as QueryResult, error: undefined, hasBegun: true, wasSent: true }
  } catch (error) {
    return { result: undefined, error: error as Error, hasBegun: query.hasBegun, wasSent: query.wasSent }
  }
}

/** What became of a COMMIT and the statement sent with it. */
export interface CommitOutcome {
  /** `COMMIT`, `ROLLBACK` (the transaction had failed before), or undefined: not answered. */
  readonly tag: string | undefined
  /** Of the statement after it; undefined when that failed. */
  readonly row: readonly unknown[] | undefined
  readonly error: Error | undefined
}

/** Ends the transaction and runs a statement after it, in one round trip. Never throws. */
export async function commitWith(client: ClientBase, statement: string): Promise<CommitOutcome> {
  const query = new TaggedQuery({ text: `commit; ${statement}`, rowMode: 'array' } as QueryConfig)
  try {
    const results = (await submit(client, query)) as { rows: unknown[][] }[]
    return { tag: query.tags[0], row: results[1]?.rows[0], error: undefined }
  } catch (error) {
    return { tag: query.tags[0], row: undefined, error: error as Error }
  }
}

/** `I`dle, in a `T`ransaction, in a failed one (`E`); null before the first answer. */
function transactionStatusOf(client: ClientBase): 'I' | 'T' | 'E' | null {
  return (client as unknown as { getTransactionStatus(): 'I' | 'T' | 'E' | null }).getTransactionStatus()
}

/** The last answer on this connection said that no transaction is open. */
export function isEnded(client: ClientBase): boolean {
  return transactionStatusOf(client) === 'I'
}

/** The user's own COMMIT or BEGIN can leave a connection in a state that the next one must not get. */
export function strayStatus(client: ClientBase): Error | undefined {
  const status = transactionStatusOf(client)
  return status === 'I' || status === null ? undefined : new Error('A transaction was left open.')
}

/** Connections that were cut and have not told so yet: a stream's own `closed` is true before its events. */
const closing = new WeakMap<ClientBase, Socket>()

/** Cuts the connection now, whatever is under way: the only way not to wait for a server that does not answer. */
export function cut(client: ClientBase, error: Error): void {
  const { connection } = client as unknown as { connection?: WireConnection }
  const stream = connection?.stream
  if (stream === undefined || stream.destroyed) return
  closing.set(client, stream)
  stream.once('close', () => closing.delete(client))
  stream.destroy(error)
}

/** Runs it now, or, when the connection was just cut, after its error was told, to which somebody must listen. */
export function afterCut(client: ClientBase, run: () => void): void {
  const stream = closing.get(client)
  if (stream === undefined) run()
  else stream.once('close', run)
}

/**
 * Waits for the end of work on a connection; after `ms` milliseconds the connection is cut, and the work fails. `beforeCut` is
 * waited for.
 */
export async function within<Result>(
  client: ClientBase,
  ms: number,
  work: Promise<Result>,
  beforeCut?: () => Promise<void>,
): Promise<Result> {
  let isOver = false
  const end = async (): Promise<void> => {
    await beforeCut?.()
    if (isOver) return
    cut(client, new ConnectionError('The server does not answer.', { code: 'connection_failed', retryable: true }))
  }
  const timer = setTimeout(() => void end(), ms)
  try {
    return await work
  } finally {
    isOver = true
    clearTimeout(timer)
  }
}

/** How long the request to cancel may take, in milliseconds. */
export const cancelTimeoutMs = 1_000
/** Number of the protocol's CancelRequest. */
const cancelRequest = 80_877_102

/**
 * Asks the server, over a connection of its own as the protocol has it, to stop what a connection is doing: a server does not
 * notice that its client is gone before it has something to say, and the locks would stay until then. Best effort; never throws.
 *
 * Resolves when the server has closed that connection, as it does when the request was passed on. Cut the other one only then: a
 * pooler finds the server by its client.
 */
export async function cancelOnServer(client: ClientBase): Promise<void> {
  const { host, port, processID, secretKey } = client as unknown as Record<'host', string> &
    Record<'port', number> &
    Record<'processID' | 'secretKey', number | null>
  if (processID === null || secretKey === null) return
  const message = Buffer.alloc(16)
  for (const [place, value] of [16, cancelRequest, processID, secretKey].entries())
    message.writeInt32BE(value, 4 * place)
  const closed = Promise.withResolvers<void>()
  const socket = connect(host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port })
  const timer = setTimeout(() => socket.destroy(), cancelTimeoutMs)
  socket.on('error', () => socket.destroy())
  socket.on('close', closed.resolve)
  // Not ended from here: a pooler forgets a request whose sender has gone.
  socket.on('connect', () => socket.write(message))
  socket.resume()
  socket.unref()
  timer.unref()
  await closed.promise
  clearTimeout(timer)
}

/** Hears what the server reports of itself: `in_hot_standby` since 14, when it connects and with a later answer. */
export function onParameter(client: ClientBase, heard: (name: string, value: string) => void): void {
  const { connection } = client as unknown as { connection?: EventEmitter }
  connection?.on('parameterStatus', (message: { parameterName: string; parameterValue: string }) =>
    heard(message.parameterName, message.parameterValue),
  )
}

async function submit(client: ClientBase, query: WireQuery): Promise<unknown> {
  return new Promise((resolve, reject) => {
    query.callback = (error, result) => (error === null || error === undefined ? resolve(result) : reject(error))
    client.query(query as unknown as pg.Query)
  })
}
