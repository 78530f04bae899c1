import { InvalidInputError } from '../core/index.ts'
import { quoteLiteral } from '../postgres/index.ts'

export type IsolationLevel = 'read committed' | 'repeatable read' | 'serializable'

export interface TransactionOptions {
  /** Default: the server's. `serializable` reads go to the primary: a standby has no such transactions. */
  readonly isolation?: IsolationLevel | undefined
  /** Longest time of a statement on the server, in milliseconds (`statement_timeout`). Default: the server's. */
  readonly statementTimeoutMs?: number | undefined
  /** Longest time of the transaction, in milliseconds, 0: none. Default: `routing.timeoutMs`. */
  readonly timeoutMs?: number | undefined
  /**
   * Ends it early, with the signal's reason, as its time-out would: rolled back, its connection cut. While COMMIT is under way the
   * outcome is unknown. Of a transaction that joins another one only looked at before it begins.
   */
  readonly signal?: AbortSignal | undefined
  /** What it is for: its `application_name` on the server, and in events. At most 63 bytes are shown by the server. */
  readonly label?: string | undefined
  /** A transaction of its own on another connection, whatever is around it. Default false: it joins. */
  readonly requiresNew?: boolean | undefined
}

export interface ReadOptions extends TransactionOptions {
  /** A token of a write: the read sees that write and all before it. */
  readonly after?: string | undefined
  /** Most that the replica may be behind at the last look, in milliseconds. Default: `routing.maxLagMs`. */
  readonly maxLagMs?: number | undefined
  /**
   * What a statement that writes leads to. `throw` (default): ReadOnlyTransactionError. `retryOnPrimary`: the function is run
   * again as a write; only where its first run has no effect outside of the database.
   */
  readonly onWrite?: 'throw' | 'retryOnPrimary' | undefined
}

export interface WriteOptions extends TransactionOptions {
  /** Resolves with `{ result, token }` instead of the bare result. */
  readonly withToken?: boolean | undefined
}

/** What a write gives with `withToken`. */
export interface Written<Result> {
  readonly result: Result
  /**
   * For `after` of a read, anywhere. Undefined: the transaction sent nothing, joined another one that has not committed yet,
   * or the position could not be asked for (then read from the primary).
   */
  readonly token: string | undefined
}

const names = {
  read: [
    'isolation',
    'statementTimeoutMs',
    'timeoutMs',
    'signal',
    'label',
    'requiresNew',
    'after',
    'maxLagMs',
    'onWrite',
  ],
  write: ['isolation', 'statementTimeoutMs', 'timeoutMs', 'signal', 'label', 'requiresNew', 'withToken'],
} as const
/** What slonik's own configuration sets, or its transactions cannot do. */
const notOverSlonik: ReadonlySet<string> = new Set(['timeoutMs', 'signal', 'onWrite', 'withToken'])

/** @throws InvalidInputError `invalid_option`. */
export function checkTransactionOptions(
  intent: 'read' | 'write',
  options: ReadOptions & WriteOptions,
  over: 'pg' | 'slonik' = 'pg',
): void {
  const known = names[intent].filter((name) => over === 'pg' || !notOverSlonik.has(name)) as string[]
  for (const [name, value] of Object.entries(options) as [string, unknown][]) {
    if (!known.includes(name)) throw invalid(`${intent} has no option "${name}".`, `Options: ${known.join(', ')}.`)
    if (value !== undefined) checkValue(name, value)
  }
}

const isolations: readonly unknown[] = ['read committed', 'repeatable read', 'serializable']

function checkValue(name: string, value: unknown): void {
  if (name.endsWith('Ms') && !(typeof value === 'number' && value >= 0 && value < 2 ** 31)) {
    throw invalid(`${name} is ${JSON.stringify(value)}, expected milliseconds.`)
  }
  if (name === 'isolation' && !isolations.includes(value)) {
    throw invalid(`isolation is ${JSON.stringify(value)}.`, `Pass ${isolations.join(', ')}.`)
  }
  if (name === 'signal' && !(value instanceof AbortSignal)) throw invalid('signal is no AbortSignal.')
  if (name === 'label' && (typeof value !== 'string' || value.includes('\0'))) throw invalid('label is no text.')
  if (name === 'onWrite' && value !== 'throw' && value !== 'retryOnPrimary') {
    throw invalid(`onWrite is ${JSON.stringify(value)}, expected throw or retryOnPrimary.`)
  }
}

/**
 * What runs before the first statement. A write says READ WRITE, which a server in recovery refuses: whatever this process
 * believes of the server, a write never runs on a standby.
 */
export function preludeOf(intent: 'read' | 'write', options: TransactionOptions): readonly string[] {
  const { isolation, statementTimeoutMs, label } = options
  const level = isolation === undefined ? '' : ` isolation level ${isolation}`
  return [
    `begin${level} ${intent === 'read' ? 'read only' : 'read write'}`,
    ...(statementTimeoutMs === undefined ? [] : [`set local statement_timeout = ${Math.ceil(statementTimeoutMs)}`]),
    ...(label === undefined ? [] : [`set local application_name = ${quoteLiteral(label)}`]),
  ]
}

function invalid(message: string, hint?: string): InvalidInputError {
  return new InvalidInputError(message, { code: 'invalid_option', hint })
}
