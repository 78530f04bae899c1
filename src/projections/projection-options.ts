import { InvalidInputError } from '../core/index.ts'
import type { ProjectedEvent, ProjectionHandler, ProjectionHandlers } from './handler.ts'
import { type TableName, tableName } from './table-name.ts'

/** Default of `batchSize`: events of one transaction. */
export const batchSizeDefault = 100
/** Most events of one transaction. */
export const batchSizeMax = 2_000
/** Most partitions of a projection. */
export const partitionsMax = 64
/** Default of `attemptsMax`. */
export const projectionAttemptsMaxDefault = 5
/** Default of `parkedMax`: parked streams of a partition. */
export const parkedMaxDefault = 1_000
/** Default of `handlerTimeoutMs`. */
export const handlerTimeoutMsDefault = 30_000
/** Default of `leaseMs`. */
export const projectionLeaseMsDefault = 10_000
/** Shortest lease: it is renewed every fifth of it. */
export const projectionLeaseMsMin = 500

/** SQL that makes a table of a read model. `table`: its name as SQL writes it; `name`: unquoted, to make names of indexes of. */
export type CreateTable = (table: string, name: string) => string

export interface ProjectionOptions<Event extends ProjectedEvent = ProjectedEvent> {
  /** One read model, in all processes: any text that is not empty, at most 200 characters. */
  readonly name: string
  /**
   * `inline`: in the transaction of the append; readers see rows and events together, and an append costs what the handlers cost.
   * `async`: after it, in the order of all events; appends cost nothing more.
   */
  readonly mode: 'inline' | 'async'
  /** By type of event, in its newest form. */
  readonly handlers: ProjectionHandlers<Event>
  /** Of handlers and tables: a whole number from 1. A higher one is built beside the live one when it starts. Default 1. */
  readonly version?: number | undefined
  /** Only events of aggregates of these types. Default: all. Others are not even read, or looked at in an append. */
  readonly categories?: readonly string[] | undefined
  /** The tables it writes to: how to make them, by name, or names of tables that exist. Without them it cannot be rebuilt. */
  readonly tables?: readonly string[] | Readonly<Record<string, CreateTable>> | undefined
  /**
   * async: shares of the streams that are worked on side by side, also by several processes. Default 1, at most 64. Each reads all events, so
   * more cost the server reading; they pay off where handlers are slow. Holds from the next build on.
   */
  readonly partitions?: number | undefined
  /** async: events of one transaction at most. Default 100. More are quicker, and longer a loss when one fails. At most 2,000. */
  readonly batchSize?: number | undefined
  /** async: what happens when an event fails. Default `stop`: it is tried again until it goes through. `park`: its stream is put aside. */
  readonly onFailure?: 'stop' | 'park' | undefined
  /** Attempts before an event is parked, or a rebuild gives up. Default 5. */
  readonly attemptsMax?: number | undefined
  /** Parked streams of a partition, above which the next one that fails stops it. Default 1,000; each takes memory for its name. */
  readonly parkedMax?: number | undefined
  /** async: milliseconds that a handler may take for one event. Default 30,000. Longer ones hold a connection and locks for so long. */
  readonly handlerTimeoutMs?: number | undefined
  /** async: milliseconds after which another process takes over from one that is not heard of. Default 10,000, at least 500. */
  readonly leaseMs?: number | undefined
}

/** A projection as its options declare it, checked. */
export interface Definition {
  readonly name: string
  readonly mode: 'inline' | 'async'
  readonly version: number
  readonly handlers: ReadonlyMap<string, ProjectionHandler<never>>
  readonly categories: readonly string[] | undefined
  readonly tables: readonly { readonly table: TableName; readonly create: CreateTable | undefined }[] | undefined
  readonly partitions: number
  readonly batchSize: number
  readonly onFailure: 'stop' | 'park'
  readonly attemptsMax: number
  readonly parkedMax: number
  readonly handlerTimeoutMs: number
  readonly leaseMs: number
}

const asyncOnly = ['partitions', 'batchSize', 'onFailure', 'handlerTimeoutMs', 'leaseMs'] as const
const known = [
  'name',
  'mode',
  'handlers',
  'version',
  'categories',
  'tables',
  'attemptsMax',
  'parkedMax',
  ...asyncOnly,
] as const

/** @throws InvalidInputError `invalid_option`, naming it. */
export function definitionOf<Event extends ProjectedEvent>(options: ProjectionOptions<Event>): Definition {
  const { name, mode } = options
  if (typeof name !== 'string' || name === '' || name.length > 200 || name.includes('\0')) {
    throw invalid('a projection', `the name ${JSON.stringify(name)}`, 'Pass a text of 1 to 200 characters.')
  }
  const what = `projection "${name}"`
  if (mode !== 'inline' && mode !== 'async') {
    throw invalid(what, `the mode ${JSON.stringify(mode)}`, "Pass 'inline' or 'async'.")
  }
  const unknown = Object.keys(options).find((option) => !(known as readonly string[]).includes(option))
  if (unknown !== undefined) throw invalid(what, `an option "${unknown}"`, `Options: ${known.join(', ')}.`)
  const foreign = mode === 'inline' ? asyncOnly.find((option) => options[option] !== undefined) : undefined
  if (foreign !== undefined) throw invalid(what, `the option ${foreign}`, 'It is for async projections: leave it out.')
  const { onFailure = 'stop', categories } = options
  if (onFailure !== 'stop' && onFailure !== 'park') {
    throw invalid(what, `onFailure ${JSON.stringify(onFailure)}`, "Pass 'stop' or 'park'.")
  }
  checkCategories(what, categories)
  const number = (option: NumberOption, fallback: number, min: number, max: number): number =>
    checkNumber(what, option, options[option] ?? fallback, [min, max])
  return {
    name,
    mode,
    version: number('version', 1, 1, 2 ** 31 - 1),
    handlers: handlersOf(what, options.handlers),
    categories,
    tables: tablesOf(what, options.tables),
    partitions: number('partitions', 1, 1, partitionsMax),
    batchSize: number('batchSize', batchSizeDefault, 1, batchSizeMax),
    onFailure,
    attemptsMax: number('attemptsMax', projectionAttemptsMaxDefault, 1, 1_000_000),
    parkedMax: number('parkedMax', parkedMaxDefault, 1, 1_000_000),
    handlerTimeoutMs: number('handlerTimeoutMs', handlerTimeoutMsDefault, 1, 2 ** 30),
    leaseMs: number('leaseMs', projectionLeaseMsDefault, projectionLeaseMsMin, 2 ** 30),
  }
}

function isCategory(category: unknown): boolean {
  return typeof category === 'string' && category !== '' && !category.includes('-')
}

function checkCategories(what: string, categories: unknown): void {
  if (categories === undefined || (Array.isArray(categories) && categories.every(isCategory))) return
  throw invalid(what, 'categories that are no aggregate types', "Pass a list, for example ['order'].")
}

type NumberOption =
  | 'version'
  | 'partitions'
  | 'batchSize'
  | 'attemptsMax'
  | 'parkedMax'
  | 'handlerTimeoutMs'
  | 'leaseMs'

function checkNumber(what: string, option: string, value: unknown, [min, max]: readonly [number, number]): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value
  throw invalid(
    what,
    `${option} ${JSON.stringify(value) ?? typeof value}`,
    `Pass a whole number from ${min} to ${max}.`,
  )
}

function handlersOf(what: string, handlers: unknown): Definition['handlers'] {
  if (typeof handlers !== 'object' || handlers === null || Array.isArray(handlers)) {
    throw invalid(what, 'no handlers', 'Pass an object with a function for each type of event.')
  }
  const entries = Object.entries(handlers as Record<string, unknown>).filter(([, handler]) => handler !== undefined)
  const wrong = entries.find(([, handler]) => typeof handler !== 'function')
  if (wrong !== undefined)
    throw invalid(what, `a handler of "${wrong[0]}" that is no function`, 'Pass (event, context) => …')
  if (entries.length === 0)
    throw invalid(what, 'no handler', 'Pass a function for each type of event that it is made of.')
  return new Map(entries as [string, ProjectionHandler<never>][])
}

function tablesOf(what: string, tables: ProjectionOptions['tables']): Definition['tables'] {
  if (tables === undefined) return undefined
  if (typeof tables !== 'object' || tables === null)
    throw invalid(what, 'tables that are neither list nor object', 'Pass { name: (table) => SQL } or a list of names.')
  const entries: [string, CreateTable | undefined][] = Array.isArray(tables)
    ? (tables as readonly string[]).map((name) => [name, undefined])
    : Object.entries(tables as Readonly<Record<string, CreateTable>>)
  if (entries.length === 0) throw invalid(what, 'an empty list of tables', 'Name its tables, or leave tables out.')
  const found = entries.map(([given, create]) => {
    if (create !== undefined && typeof create !== 'function')
      throw invalid(what, `a table "${given}" without a function`, 'Pass (table) => the SQL that makes it.')
    return { table: tableName(given), create }
  })
  const twice = found.find(({ table }, index) => found.findIndex((other) => other.table.sql === table.sql) !== index)
  if (twice !== undefined) throw invalid(what, `the table ${twice.table.sql} twice`, 'Name it once.')
  return found
}

function invalid(what: string, found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`Wrong options: ${what} has ${found}.`, { code: 'invalid_option', hint })
}
