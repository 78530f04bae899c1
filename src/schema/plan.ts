import { TrunklineError } from '../core/index.ts'
import type { Migration, Release, SqlFile } from './release.ts'

/** What a schema has applied, as its bookkeeping says. */
export interface SchemaState {
  readonly schemaExists: boolean
  /** Undefined: there is no bookkeeping, nothing was ever applied. */
  readonly applied: Applied | undefined
  /** Names of tables, views and functions in a schema without bookkeeping. */
  readonly strangers: readonly string[]
}

export interface Applied {
  readonly migrations: ReadonlyMap<number, { readonly name: string; readonly checksum: string }>
  readonly routines: ReadonlyMap<string, { readonly checksum: string; readonly version: string }>
}

/** What is to be done to bring a schema to this release. */
export interface Plan {
  readonly migrations: readonly Migration[]
  readonly routines: readonly SqlFile[]
  /** Routines that a newer version of the package wrote, which stay as they are. */
  readonly newerRoutines: readonly string[]
}

/**
 * Compares a schema with a release.
 *
 * @throws TrunklineError `schema_newer`: the schema has a migration that the release does not know;
 * `migration_changed`: a migration was applied with another text; `schema_not_empty`: the schema holds something else.
 */
export function comparePlan(release: Release, state: SchemaState, schema: string): Plan {
  if (state.applied === undefined) {
    if (state.strangers.length > 0) throw notEmpty(schema, state.strangers)
    return { migrations: release.migrations, routines: release.routines, newerRoutines: [] }
  }
  const { migrations: applied, routines: written } = state.applied
  refuseNewer(release, applied, schema)
  refuseChanged(release, applied)
  const migrations = release.migrations.filter(({ number }) => !applied.has(number))
  // A migration may have dropped a routine to give it other arguments: after one, all are written again.
  const differing = release.routines.filter(
    ({ name, checksum }) => migrations.length > 0 || written.get(name)?.checksum !== checksum,
  )
  const newer = differing.filter(({ name }) => isNewer(written.get(name)?.version, release.version))
  return {
    migrations,
    routines: differing.filter((routine) => !newer.includes(routine)),
    newerRoutines: newer.map(({ name }) => name),
  }
}

function refuseNewer(release: Release, applied: Applied['migrations'], schema: string): void {
  const known = new Set(release.migrations.map(({ number }) => number))
  const unknown = [...applied].filter(([number]) => !known.has(number)).map(([, { name }]) => name)
  if (unknown.length === 0) return
  throw new TrunklineError(
    `Schema "${schema}" is newer than this version of trunkline (${release.version}): it has ${unknown.join(', ')}.`,
    {
      code: 'schema_newer',
      hint: 'Use the version of trunkline that migrated it, or a later one.',
      details: { schema, unknown, version: release.version },
    },
  )
}

function refuseChanged(release: Release, applied: Applied['migrations']): void {
  const changed = release.migrations.find(({ number, checksum }) => {
    const before = applied.get(number)
    return before !== undefined && before.checksum !== checksum
  })
  if (changed === undefined) return
  throw new TrunklineError(
    `Migration ${changed.name} was applied with another text than this version of trunkline has.`,
    {
      code: 'migration_changed',
      hint: 'Install an unmodified trunkline package; migrations are never edited after a release.',
      details: { migration: changed.name },
    },
  )
}

function notEmpty(schema: string, strangers: readonly string[]): TrunklineError {
  const some = strangers.slice(0, 5).join(', ') + (strangers.length > 5 ? ', …' : '')
  return new TrunklineError(`Schema "${schema}" exists and holds ${some}, which is not trunkline's.`, {
    code: 'schema_not_empty',
    hint: 'Choose a schema of its own (--schema, or the option schema).',
    details: { schema, strangers },
  })
}

/** True when version `left` is later than `right`; of pre-releases only the numbers before the dash count. */
function isNewer(left: string | undefined, right: string): boolean {
  if (left === undefined) return false
  const [a, b] = [numbersOf(left), numbersOf(right)]
  const place = a.findIndex((part, index) => part !== b[index])
  return place >= 0 && (a[place] ?? 0) > (b[place] ?? 0)
}

function numbersOf(version: string): number[] {
  return (version.split('-', 1)[0] ?? '').split('.').map(Number)
}
