import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { InvalidInputError, messageOf } from '../core/index.ts'
import type { Projection, ProjectionOptions } from '../projections/index.ts'
import type { Sink } from '../relay/index.ts'
import type { ReplicaOptions, RoutingOptions } from '../routing/index.ts'
import type { Trunkline } from '../trunkline.ts'

/** The options of createTrunkline that the command line reads from a configuration module. */
export interface ConfigFile {
  readonly url?: string
  readonly schema?: string
  readonly listenUrl?: string | false
  /** Sinks of your own, by the name that `relay --sink` takes. */
  readonly sinks?: Readonly<Record<string, Sink>>
  readonly replicaUrls?: readonly (string | ReplicaOptions)[]
  readonly routing?: RoutingOptions
  /**
   * Projections that `projections rebuild` can rebuild: their options, or a function that makes them, which may declare aggregates
   * with upcasters before.
   */
  readonly projections?: ProjectionsConfig
}

export type ProjectionsConfig = readonly ProjectionOptions[] | ((trunkline: Trunkline) => readonly Projection[])

const defaultNames = ['trunkline.config.ts', 'trunkline.config.js', 'trunkline.config.mjs']
const texts = ['url', 'schema', 'listenUrl'] as const

/** Loads the default export of the module given, else of the one in the working directory, else nothing. */
export async function loadConfigFile(given: string | undefined): Promise<ConfigFile> {
  const path = given ?? defaultNames.find((name) => existsSync(name))
  if (path === undefined) return {}
  if (!existsSync(path)) throw wrong(path, 'does not exist', 'Check the path after --config.')
  const module = await importModule(path)
  const config = module.default
  if (typeof config !== 'object' || config === null) {
    throw wrong(path, 'has no default export', "For example: export default { url: process.env['DATABASE_URL'] }")
  }
  for (const name of texts) {
    const value = (config as Record<string, unknown>)[name]
    const isFine = value === undefined || typeof value === 'string' || (name === 'listenUrl' && value === false)
    if (!isFine) throw wrong(path, `has a ${typeof value} for ${name}`, 'Set it to a string.')
  }
  checkSinks(path, (config as Record<string, unknown>)['sinks'])
  checkReplicaUrls(path, (config as Record<string, unknown>)['replicaUrls'])
  checkProjections(path, (config as Record<string, unknown>)['projections'])
  return config
}

function checkSinks(path: string, sinks: unknown): void {
  if (sinks === undefined) return
  if (typeof sinks !== 'object' || sinks === null)
    throw wrong(path, 'has no object for sinks', 'Set it to sinks by name.')
  for (const [name, sink] of Object.entries(sinks)) {
    if (typeof sink === 'object' && sink !== null && 'deliver' in sink) continue
    throw wrong(path, `has something for sinks.${name} that is no sink`, 'Set it to an object that implements Sink.')
  }
}

function checkReplicaUrls(path: string, urls: unknown): void {
  if (urls === undefined || Array.isArray(urls)) return
  throw wrong(path, `has a ${typeof urls} for replicaUrls`, 'Set it to a list of URLs.')
}

function checkProjections(path: string, projections: unknown): void {
  if (projections === undefined || Array.isArray(projections) || typeof projections === 'function') return
  throw wrong(path, `has a ${typeof projections} for projections`, 'Set it to a list of their options, or a function.')
}

async function importModule(path: string): Promise<{ default?: unknown }> {
  try {
    return (await import(pathToFileURL(resolve(path)).href)) as { default?: unknown }
  } catch (error) {
    throw wrong(path, `cannot be loaded: ${messageOf(error)}`, 'Run it with node to see where it fails.')
  }
}

function wrong(path: string, found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`The configuration module ${path} ${found}.`, { code: 'invalid_config', hint })
}
