import type { Command } from 'commander'
import pg from 'pg'
import { InvalidInputError, type Logger } from '../core/index.ts'
import { configFromUrl, guardAgainstHugeValues, type Queryable } from '../postgres/index.ts'
import type { Sink } from '../relay/index.ts'
import { type ReplicaOptions, replicaUrlsFromEnvironment, type RoutingOptions } from '../routing/index.ts'
import { loadConfigFile, type ProjectionsConfig } from './config-file.ts'
import { stderrLogger } from './logger.ts'
import type { GlobalOptions } from './options.ts'

/** What a command works with. */
export interface CommandContext {
  readonly schema: string
  readonly isJson: boolean
  readonly logger: Logger
  /** Aborted by SIGINT and SIGTERM: finish the work in flight. */
  readonly signal: AbortSignal
  /** Where LISTEN goes: its own URL, else the one of everything else; false: nowhere. */
  readonly listenUrl: string | false | undefined
  /** Sinks that the configuration module makes, by name. */
  readonly sinks: Readonly<Record<string, Sink>>
  /** Standbys that reads go to: TRUNKLINE_REPLICA_URLS, else the configuration's. */
  readonly replicaUrls: readonly (string | ReplicaOptions)[]
  readonly routing: RoutingOptions | undefined
  /** Projections of the configuration module. */
  readonly projections: ProjectionsConfig
  /**
   * Connections to the database, closed when the command ends.
   *
   * @throws InvalidInputError `missing_url`, `invalid_url`.
   */
  pool(): pg.Pool
  /** A result: with `--json` the object on a line of its own, else the text; nothing where it is undefined. */
  print(object: Readonly<Record<string, unknown>>, text: string | undefined): void
}

/** The command did its work and the answer is no; all was said. */
export class CommandFailed extends Error {}

/** Most connections of one command. */
const poolSizeMax = 2

/** Runs a command's work with options, environment and configuration module put together. */
export async function withContext(
  command: Command,
  signal: AbortSignal,
  work: (context: CommandContext) => Promise<void>,
): Promise<void> {
  const options = command.optsWithGlobals<GlobalOptions>()
  const config = await loadConfigFile(options.config)
  const logger = stderrLogger()
  const replicaUrls = replicaUrlsFromEnvironment()
  let pool: pg.Pool | undefined
  try {
    await work({
      schema: options.schema ?? env('TRUNKLINE_SCHEMA') ?? config.schema ?? 'trunkline',
      isJson: options.json === true,
      logger,
      signal,
      listenUrl: env('TRUNKLINE_LISTEN_URL') ?? config.listenUrl,
      sinks: config.sinks ?? {},
      replicaUrls: replicaUrls.length > 0 ? replicaUrls : (config.replicaUrls ?? []),
      routing: config.routing,
      projections: config.projections ?? [],
      pool() {
        pool ??= openPool(options.url, config.url, command.name(), logger)
        return pool
      },
      print(object, text) {
        if (options.json === true) process.stdout.write(`${JSON.stringify(object)}\n`)
        else if (text !== undefined) process.stdout.write(`${text}\n`)
      },
    })
  } finally {
    await pool?.end()
  }
}

/** The pool's statements as one contract. */
export function queryable(context: CommandContext): Queryable {
  return context.pool()
}

function openPool(flag: string | undefined, configured: string | undefined, name: string, logger: Logger): pg.Pool {
  const fromEnvironment = env('DATABASE_URL')
  const url = flag ?? fromEnvironment ?? configured
  if (url === undefined || url === '') {
    throw new InvalidInputError('No database was named.', {
      code: 'missing_url',
      hint: 'Pass --url postgres://user:password@host:5432/database, or set DATABASE_URL.',
    })
  }
  const source =
    flag === undefined ? (fromEnvironment === undefined ? 'url of the configuration' : 'DATABASE_URL') : '--url'
  const pool = new pg.Pool({
    application_name: `trunkline ${name}`,
    max: poolSizeMax,
    ...configFromUrl(url, source),
  })
  pool.on('error', (error) => logger.debug('A connection broke.', { error }))
  pool.on('connect', guardAgainstHugeValues)
  return pool
}

/** An environment variable; an empty one counts as not set. */
function env(name: string): string | undefined {
  const value = process.env[name]
  return value === '' ? undefined : value
}
