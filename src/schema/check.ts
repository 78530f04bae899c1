import { TrunklineError } from '../core/index.ts'
import { type Queryable, toTrunklineError } from '../postgres/index.ts'
import { comparePlan } from './plan.ts'
import { currentRelease } from './release.ts'
import { checkSchemaName, readState } from './state.ts'

/**
 * Checks that the schema is there and of this version of the package. For the start of whatever uses it; changes nothing.
 *
 * @throws TrunklineError `schema_missing` or `schema_older` (mend: migrate), `schema_newer`, `migration_changed`.
 */
export async function checkSchema(db: Queryable, schema: string): Promise<void> {
  checkSchemaName(schema)
  try {
    const state = await readState(db, schema)
    if (state.applied === undefined) throw missing(schema, state.schemaExists)
    const plan = comparePlan(currentRelease(), state, schema)
    if (plan.migrations.length + plan.routines.length > 0) {
      throw older(
        schema,
        [...plan.migrations, ...plan.routines].map(({ name }) => name),
      )
    }
  } catch (error) {
    throw toTrunklineError(error, `Looking at schema "${schema}"`)
  }
}

const migrateHint = 'Run: trunkline migrate (or call migrate()) as the owner of the schema.'

function missing(schema: string, schemaExists: boolean): TrunklineError {
  const found = schemaExists ? 'exists and has nothing of trunkline' : 'does not exist in this database'
  return new TrunklineError(`Schema "${schema}" ${found}.`, {
    code: 'schema_missing',
    hint: migrateHint,
    details: { schema },
  })
}

function older(schema: string, pending: readonly string[]): TrunklineError {
  return new TrunklineError(
    `Schema "${schema}" is older than this version of trunkline: it lacks ${listed(pending)}.`,
    {
      code: 'schema_older',
      hint: migrateHint,
      details: { schema, pending },
    },
  )
}

function listed(names: readonly string[]): string {
  return names.length > 3 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ')
}
