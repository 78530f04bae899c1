import type { Pool, PoolClient } from 'pg'
import { InvalidInputError, type Logger, silentLogger } from '../core/index.ts'
import { retryWhileLocked, toTrunklineError, withClient } from '../postgres/index.ts'
import { actAsOwner, asRefusal } from './owner.ts'
import { comparePlan, type Plan } from './plan.ts'
import { currentRelease } from './release.ts'
import { inTransaction, takeTurn } from './session.ts'
import { checkSchemaName, readState } from './state.ts'
import { stepsOf, transactionSettings } from './statements.ts'

/** Which schema of which database. */
export interface SchemaOptions {
  /** Connections of the role that owns the schema, or is to own it. */
  readonly pool: Pool
  /** The schema's name. */
  readonly schema: string
  readonly logger?: Logger | undefined
  /** Ends the waiting for locks early. */
  readonly signal?: AbortSignal | undefined
}

/** What a migration did, or would do. All empty: the schema was up to date. */
export interface MigrationReport {
  readonly schema: string
  /** Names of the migrations, in order. */
  readonly migrations: readonly string[]
  /** Names of the routines that are new or changed. */
  readonly routines: readonly string[]
}

/**
 * Installs the schema, or brings it to this version of the package: all in one transaction, with a lock timeout. Any
 * number of processes may call it at once: the first does the work, the others find it done.
 *
 * @throws TrunklineError `schema_newer`, `migration_changed`, `schema_not_empty`, `no_privilege`, `server_too_old`, …
 */
export async function migrate(options: SchemaOptions): Promise<MigrationReport> {
  const { pool, schema, logger = silentLogger, signal } = options
  checkSchemaName(schema)
  try {
    return await withClient(pool, async (client) => {
      try {
        // Nearly always there is nothing to do; a fleet that starts must not queue for that.
        const plan = await makePlan(client, options)
        if (isEmpty(plan)) return reportOf(plan, schema)
        return await retryWhileLocked(() => inTransaction(client, () => apply(client, options)), {
          signal,
          onRetry: (attempt) => logger.info('Waiting for a lock to migrate the schema.', { schema, attempt }),
        })
      } catch (failure) {
        throw await asRefusal(client, schema, failure)
      }
    })
  } catch (error) {
    throw toTrunklineError(error, `Migrating schema "${schema}"`)
  }
}

/** What `migrate` would do now. Changes nothing. */
export async function planMigration(options: SchemaOptions): Promise<MigrationReport> {
  const { pool, schema } = options
  checkSchemaName(schema)
  try {
    return reportOf(await withClient(pool, (client) => makePlan(client, options)), schema)
  } catch (error) {
    throw toTrunklineError(error, `Looking at schema "${schema}"`)
  }
}

async function makePlan(client: PoolClient, { schema, logger = silentLogger }: SchemaOptions): Promise<Plan> {
  const state = await readState(client, schema)
  if (state.isStandby) {
    throw new InvalidInputError('The server is a standby, which cannot be changed.', {
      code: 'standby',
      hint: 'Migrate on the primary.',
    })
  }
  const plan = comparePlan(currentRelease(), state, schema)
  if (plan.newerRoutines.length > 0) {
    logger.warn('A newer version of trunkline wrote routines of the schema; they stay.', {
      schema,
      routines: plan.newerRoutines,
    })
  }
  return plan
}

/** Looks again: another runner may have done it all while this one waited for its turn. */
async function apply(client: PoolClient, options: SchemaOptions): Promise<MigrationReport> {
  const { schema, logger = silentLogger, signal } = options
  await takeTurn(client, schema, signal)
  const plan = await makePlan(client, options)
  await actAsOwner(client, schema)
  await client.query(transactionSettings())
  for (const step of stepsOf(plan, schema, currentRelease().version)) {
    logger.debug(`Applying ${step.name}.`, { schema })
    await client.query(step.sql)
  }
  return reportOf(plan, schema)
}

function isEmpty(plan: Plan): boolean {
  return plan.migrations.length === 0 && plan.routines.length === 0
}

function reportOf(plan: Plan, schema: string): MigrationReport {
  return {
    schema,
    migrations: plan.migrations.map(({ name }) => name),
    routines: plan.routines.map(({ name }) => name),
  }
}
