import type { ClientConfig } from 'pg'
import { InvalidInputError } from '../core/index.ts'
import { configFromUrl } from '../postgres/index.ts'

/** Default weight of a replica. */
export const weightDefault = 1
/** Default of `maxLagMs`. */
export const maxLagMsDefault = 10_000
/** Default of `maxLagBytes`: 256 MiB. */
export const maxLagBytesDefault = 268_435_456
/** Default of `waitTimeoutMs`. */
export const waitTimeoutMsDefault = 500
/** Default of `timeoutMs`. */
export const timeoutMsDefault = 60_000
/** Default of `acquireTimeoutMs`. */
export const acquireTimeoutMsDefault = 5_000
/** Default of `healthIntervalMs`. */
export const healthIntervalMsDefault = 1_000
/** Default of `poolSizeMax`. */
export const poolSizeMaxDefault = 10
/** Default of `fallbackMax`. */
export const fallbackMaxDefault = 5

/** A streaming standby. */
export interface ReplicaOptions {
  /** As `postgres://user:password@host:port/database`. */
  readonly url: string
  /** Share of the reads against the other replicas. Default 1; 2 takes twice as much. */
  readonly weight?: number | undefined
  /** How events, status and errors call it. Default `host:port`, with the database where another server has that. */
  readonly name?: string | undefined
}

/**
 * Where a read goes when no replica is recent enough or none can be reached. `primary`: there, at most `fallbackMax` at a time.
 * `stale`: to the replica that is least behind, and nowhere when none can be reached. `error`: nowhere, ReplicaLagError or
 * ReplicaUnavailableError.
 */
export type Fallback = 'primary' | 'stale' | 'error'

export interface RoutingOptions {
  /** Default `primary`. */
  readonly fallback?: Fallback | undefined
  /**
   * Reads that the primary takes at a time for want of a replica; more wait, up to `acquireTimeoutMs`. Default 5: all replicas
   * lost must not mean the primary lost, too.
   */
  readonly fallbackMax?: number | undefined
  /** A replica behind by more milliseconds serves no reads until it is within half of it. Default 10,000. */
  readonly maxLagMs?: number | undefined
  /** The same in bytes of WAL. Default 256 MiB. */
  readonly maxLagBytes?: number | undefined
  /** Longest wait of a read with a token for a replica to replay it, in milliseconds. Default 500. Longer spares the primary. */
  readonly waitTimeoutMs?: number | undefined
  /**
   * Longest time of a routed transaction from its call to its end, in milliseconds; then its connection is cut and the call
   * fails. Default 60,000; 0: none.
   */
  readonly timeoutMs?: number | undefined
  /** Longest wait for a connection, and of a write for a primary to be known, in milliseconds. Default 5,000. */
  readonly acquireTimeoutMs?: number | undefined
  /** Milliseconds between two looks at each server. Default 1,000. Lower notices a fail-over and lag earlier. */
  readonly healthIntervalMs?: number | undefined
  /** Most connections to each server, one more looks after it. Default 10. */
  readonly poolSizeMax?: number | undefined
}

/** With the defaults filled in. */
export type RoutingSettings = { readonly [Name in keyof RoutingOptions]-?: Exclude<RoutingOptions[Name], undefined> }

/** A server as it was configured. */
export interface NodeConfig {
  readonly name: string
  /** Its name where another server has the first one; undefined: the caller chose it. */
  readonly longName?: string | undefined
  readonly weight: number
  readonly config: ClientConfig
}

const defaults: RoutingSettings = {
  fallback: 'primary',
  fallbackMax: fallbackMaxDefault,
  maxLagMs: maxLagMsDefault,
  maxLagBytes: maxLagBytesDefault,
  waitTimeoutMs: waitTimeoutMsDefault,
  timeoutMs: timeoutMsDefault,
  acquireTimeoutMs: acquireTimeoutMsDefault,
  healthIntervalMs: healthIntervalMsDefault,
  poolSizeMax: poolSizeMaxDefault,
}

/** Those that may be 0. */
const mayBeZero = new Set(['waitTimeoutMs', 'timeoutMs', 'maxLagMs', 'maxLagBytes'])
/** Those that count, or go to a timer. */
const mustBeFinite = new Set(['waitTimeoutMs', 'acquireTimeoutMs', 'healthIntervalMs', 'poolSizeMax', 'fallbackMax'])

/** @throws InvalidInputError `invalid_option`, naming it. */
export function routingSettings(options: RoutingOptions = {}): RoutingSettings {
  const settings: Record<string, unknown> = { ...defaults }
  for (const [name, value] of Object.entries(options)) {
    if (!(name in defaults)) {
      throw invalid(`There is no option routing.${name}.`, `Options: ${Object.keys(defaults).join(', ')}.`)
    }
    if (value !== undefined) settings[name] = name === 'fallback' ? checkedFallback(value) : checkedNumber(name, value)
  }
  return settings as unknown as RoutingSettings
}

/** @throws InvalidInputError `invalid_url`, `invalid_option`. */
export function nodeConfig(given: string | ReplicaOptions, option: string): NodeConfig {
  const { url, weight = weightDefault, name } = typeof given === 'string' ? { url: given } : given
  if (typeof url !== 'string') throw invalid(`${option} has no url.`, 'Give a URL, or { url, weight, name }.')
  const config = configFromUrl(url, option)
  if (typeof weight !== 'number' || !(weight > 0) || !Number.isFinite(weight)) {
    throw invalid(`The weight of ${option} is ${JSON.stringify(weight)}, expected a number above 0.`)
  }
  if (name !== undefined) return { name, weight, config }
  return { name: nameOf(url), longName: `${nameOf(url)}${pathOf(config)}`, weight, config }
}

/**
 * With a name that no other server has: through one pooler several are reached at one `host:port`.
 *
 * @throws InvalidInputError `invalid_option`.
 */
export function namedApart(config: NodeConfig, others: readonly { readonly name: string }[]): NodeConfig {
  const isTaken = (name: string): boolean => others.some((other) => other.name === name)
  const { name, longName } = config
  if (!isTaken(name)) return config
  if (longName !== undefined && !isTaken(longName)) return { ...config, name: longName }
  throw invalid(`There is a server called ${name}.`, 'Pass { url, name } with another name.')
}

/** What two URLs of one server and database have in common; user, password and parameters may differ. */
function addressOf(config: ClientConfig): string | undefined {
  return config.connectionString === undefined ? undefined : `${nameOf(config.connectionString)}${pathOf(config)}`
}

/** TRUNKLINE_REPLICA_URLS: URLs with commas between them. */
export function replicaUrlsFromEnvironment(): string[] {
  const urls = (process.env['TRUNKLINE_REPLICA_URLS'] ?? '').split(',').map((url) => url.trim())
  return urls.filter((url) => url !== '')
}

/** Refuses a replica that is written like the primary or like another replica. */
export function checkDistinct(
  nodes: readonly Pick<NodeConfig, 'name' | 'config'>[],
  primary: ClientConfig | undefined,
): void {
  const seen = new Set<string>()
  const primaryAddress = primary === undefined ? undefined : addressOf(primary)
  for (const { config, name } of nodes) {
    const address = addressOf(config)
    if (address === undefined) continue
    if (address === primaryAddress) {
      throw new InvalidInputError(`The replica ${name} is the primary: both URLs name the same server and database.`, {
        code: 'replica_is_primary',
        hint: 'Leave it out of replicaUrls, or name the standby.',
        details: { node: name },
      })
    }
    if (seen.has(address)) throw invalid(`The replica ${name} is given twice.`, 'Name each standby once; use weight.')
    seen.add(address)
  }
}

/** As pg reads it: parameters (`?host=/run/postgresql`, of a socket) go before the address. */
function nameOf(url: string): string {
  const { hostname, port, searchParams } = new URL(url)
  const host = searchParams.get('host') ?? decodeURIComponent(hostname)
  const at = searchParams.get('port') ?? port
  return `${host === '' ? 'localhost' : host}:${at === '' ? '5432' : at}`
}

function pathOf({ connectionString = '' }: ClientConfig): string {
  return new URL(connectionString).pathname
}

function checkedFallback(value: unknown): Fallback {
  if (value === 'primary' || value === 'stale' || value === 'error') return value
  throw invalid(`routing.fallback is ${JSON.stringify(value)}, expected primary, stale or error.`)
}

function checkedNumber(name: string, value: unknown): number {
  const isFine =
    typeof value === 'number' &&
    (value > 0 || (value === 0 && mayBeZero.has(name))) &&
    (Number.isFinite(value) || !mustBeFinite.has(name))
  if (isFine && (!name.endsWith('Ms') || !mustBeFinite.has(name) || value < 2 ** 31)) return value
  throw invalid(`routing.${name} is ${JSON.stringify(value)}, expected a number above 0.`)
}

function invalid(message: string, hint?: string): InvalidInputError {
  return new InvalidInputError(message, { code: 'invalid_option', hint })
}
