import type { ClientConfig } from 'pg'
import { InvalidInputError } from '../core/index.ts'

/** Oldest server that trunkline supports, as `server_version_num` prints it. */
const oldestServer = 120_000

/** How long to wait for a connection, in milliseconds. */
const connectTimeoutMs = 10_000
/** Idle time after which the operating system probes a connection, in milliseconds (the default would be two hours). */
const keepAliveAfterMs = 10_000

/** Those of libpq, and the driver's own. Of another one the driver makes the strictest, without a word. */
const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify']

/**
 * Checks a PostgreSQL URL and makes a driver configuration of it, with time-outs and TCP keep-alive set: without them a
 * query on a half-open socket waits for ever.
 */
export function configFromUrl(url: string, option: string): ClientConfig {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw invalidUrl(option, 'is not a URL')
  }
  if (parsed.protocol !== 'postgres:' && parsed.protocol !== 'postgresql:') {
    throw invalidUrl(option, `starts with "${parsed.protocol}//"`)
  }
  const sslMode = parsed.searchParams.get('sslmode')
  if (sslMode !== null && !sslModes.includes(sslMode)) {
    throw invalidUrl(
      option,
      `has the unknown sslmode ${JSON.stringify(sslMode.slice(0, 20))}`,
      `Say one of ${sslModes.join(', ')}.`,
    )
  }
  return withDefaults({ connectionString: url })
}

/** The configuration with trunkline's time-outs where the caller set none. */
export function withDefaults(config: ClientConfig): ClientConfig {
  return {
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveAfterMs,
    ...config,
  }
}

/** Throws when the server is older than the oldest supported. `versionNumber`: `server_version_num`. */
export function checkServerVersion(versionNumber: number): void {
  if (versionNumber >= oldestServer) return
  throw new InvalidInputError(
    `The server is PostgreSQL ${Math.floor(versionNumber / 10_000)}, trunkline needs 12 or newer.`,
    {
      code: 'server_too_old',
      details: { versionNumber, oldestServer },
    },
  )
}

function invalidUrl(
  option: string,
  found: string,
  hint = 'For example: postgres://user:password@localhost:5432/database',
): InvalidInputError {
  // The value is not printed: it may hold a password.
  return new InvalidInputError(`${option} ${found}, expected a PostgreSQL URL.`, {
    code: 'invalid_url',
    hint,
    details: { option },
  })
}
