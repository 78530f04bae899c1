import type { PoolClient } from 'pg'
import { InvalidInputError, silentLogger, TrunklineError } from '../core/index.ts'
import {
  lockTimeoutMs,
  quoteIdentifier,
  quoteQualified,
  retryWhileLocked,
  toTrunklineError,
  withClient,
} from '../postgres/index.ts'
import type { SchemaOptions } from './migrate.ts'
import { comparePlan } from './plan.ts'
import { currentRelease, type Release } from './release.ts'
import { inTransaction, takeTurn } from './session.ts'
import { checkSchemaName, readState } from './state.ts'

export interface UninstallOptions extends SchemaOptions {
  /** Removes the event store with its events. Default false: with events in it nothing is removed. */
  readonly dropEvents?: boolean | undefined
}

/** What an uninstall did. */
export interface UninstallReport {
  readonly schema: string
  /** False: there was nothing to remove. */
  readonly removed: boolean
  /** Tables, as SQL names, that had triggers. */
  readonly released: readonly string[]
  /** What is in the schema and is not trunkline's: it stays, and the schema with it. */
  readonly kept: readonly string[]
}

/**
 * Removes triggers and schema; the application's tables stay as they were. Each table is released in a transaction of
 * its own and with a lock timeout, so that no writer waits for long. Whatever else depends on a table of trunkline (a
 * view, say) is met with an error and nothing of the schema is removed. Twice is harmless.
 */
export async function uninstall(options: UninstallOptions): Promise<UninstallReport> {
  const { pool, schema, logger = silentLogger, signal, dropEvents = false } = options
  checkSchemaName(schema)
  const retry = {
    signal,
    onRetry: (attempt: number) => logger.info('Waiting for a lock to uninstall.', { schema, attempt }),
  }
  try {
    return await withClient(pool, async (client) => {
      const state = await readState(client, schema)
      if (state.applied === undefined) return { schema, removed: false, released: [], kept: [] }
      // A newer schema has objects that this version does not know and would leave behind.
      comparePlan(currentRelease(), state, schema)
      if (!dropEvents) await refuseWithEvents(client, schema)
      const released = await findCapturedTables(client, schema)
      for (const table of released) {
        await retryWhileLocked(() => inTransaction(client, () => dropTriggers(client, schema, table)), retry)
        logger.info(`Released ${table.name}.`, { schema })
      }
      await retryWhileLocked(() => inTransaction(client, () => dropSchema(client, schema, signal)), retry)
      const kept = (await readState(client, schema)).strangers
      return { schema, removed: true, released: released.map(({ name }) => name), kept }
    })
  } catch (error) {
    throw toTrunklineError(error, `Uninstalling schema "${schema}"`)
  }
}

interface CapturedTable {
  /** Its oid. */
  readonly id: string
  /** As SQL writes it. */
  readonly name: string
}

/** Events are nobody's copy of anything: they go only when that is said. */
async function refuseWithEvents(client: PoolClient, schema: string): Promise<void> {
  const table = quoteQualified(schema, 'event')
  const { rows: found } = await client.query<{ has_table: boolean }>(
    'select pg_catalog.to_regclass($1) is not null as has_table',
    [table],
  )
  if (found[0]?.has_table !== true) return
  const { rows } = await client.query(`select from ${table} limit 1`)
  if (rows.length === 0) return
  throw new InvalidInputError(`Schema "${schema}" holds an event store with events in it.`, {
    code: 'events_stored',
    hint: 'They would be gone for good: dump them, then uninstall with --drop-events (dropEvents: true).',
    details: { schema },
  })
}

/** Triggers of the schema that can be dropped: clones on partitions go with the root's. */
const triggersQuery = `
  select t.tgrelid, t.tgname
  from pg_catalog.pg_trigger as t
  join pg_catalog.pg_proc as p on p.oid = t.tgfoid
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
  join pg_catalog.pg_class as r on r.oid = t.tgrelid
  where n.nspname = $1
    -- Tables of trunkline's own go with the schema.
    and r.relnamespace <> n.oid
    and not t.tgisinternal
    and not exists (
      select from pg_catalog.pg_depend as d
      where d.classid = 'pg_catalog.pg_trigger'::regclass and d.objid = t.oid
        and d.refclassid = 'pg_catalog.pg_trigger'::regclass and d.deptype in ('P', 'S', 'I')
    )`

async function findCapturedTables(client: PoolClient, schema: string): Promise<CapturedTable[]> {
  const { rows } = await client.query<CapturedTable>(
    `select distinct g.tgrelid::text as id, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from (${triggersQuery}) as g
    join pg_catalog.pg_class as c on c.oid = g.tgrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    order by name`,
    [schema],
  )
  return rows
}

async function dropTriggers(client: PoolClient, schema: string, { id }: CapturedTable): Promise<void> {
  await client.query(`set local lock_timeout = ${lockTimeoutMs}`)
  // Names are read again: the table may have been renamed, or be gone.
  const { rows } = await client.query<{ statement: string }>(
    `select pg_catalog.format('drop trigger %I on %I.%I', g.tgname, n.nspname, c.relname) as statement
    from (${triggersQuery}) as g
    join pg_catalog.pg_class as c on c.oid = g.tgrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where g.tgrelid::text = $2`,
    [schema, id],
  )
  for (const { statement } of rows) await client.query(statement)
}

/** Never with CASCADE: what somebody built on the schema is theirs. */
async function dropSchema(client: PoolClient, schema: string, signal: AbortSignal | undefined): Promise<void> {
  await takeTurn(client, schema, signal)
  await client.query(`set local lock_timeout = ${lockTimeoutMs}`)
  if ((await readState(client, schema)).applied === undefined) return
  const { views, functions, tables, sequences } = objectsOf(currentRelease())
  const { rows } = await client.query<{ name: string }>(
    `select pg_catalog.format('%s(%s)', pg_catalog.quote_ident(p.proname), pg_catalog.pg_get_function_identity_arguments(p.oid)) as name
    from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = $1 and (p.proname = any ($2) or p.proname ~ '^capture_keys_[0-9]+$')`,
    [schema, functions],
  )
  const place = quoteIdentifier(schema)
  try {
    for (const statement of await ownTriggers(client, schema)) await client.query(statement)
    await dropAll(
      client,
      'view',
      views.map((name) => quoteQualified(schema, name)),
    )
    await dropAll(
      client,
      'function',
      rows.map(({ name }) => `${place}.${name}`),
    )
    await dropAll(
      client,
      'table',
      tables.map((name) => quoteQualified(schema, name)),
    )
    await dropAll(
      client,
      'sequence',
      sequences.map((name) => quoteQualified(schema, name)),
    )
  } catch (error) {
    throw asInUse(error, schema)
  }
  if ((await readState(client, schema)).strangers.length === 0) await client.query(`drop schema ${place}`)
}

/** Functions go before the tables whose types they name, so triggers of those tables go before them. */
async function ownTriggers(client: PoolClient, schema: string): Promise<string[]> {
  const { rows } = await client.query<{ statement: string }>(
    `select pg_catalog.format('drop trigger %I on %I.%I', t.tgname, n.nspname, r.relname) as statement
    from pg_catalog.pg_trigger as t
    join pg_catalog.pg_class as r on r.oid = t.tgrelid
    join pg_catalog.pg_namespace as n on n.oid = r.relnamespace
    where n.nspname = $1 and not t.tgisinternal`,
    [schema],
  )
  return rows.map(({ statement }) => statement)
}

/** One statement: what depends on each other goes together. */
async function dropAll(client: PoolClient, kind: string, names: readonly string[]): Promise<void> {
  if (names.length > 0) await client.query(`drop ${kind} if exists ${names.join(', ')}`)
}

/** Names of what the files of sql/ create. */
function objectsOf(release: Release): Record<'views' | 'functions' | 'tables' | 'sequences', string[]> {
  const text = [...release.migrations, ...release.routines].map((file) => file.text).join('\n')
  const names = (pattern: RegExp): string[] => [...new Set([...text.matchAll(pattern)].map(([, name = '']) => name))]
  return {
    views: names(/^create (?:or replace )?view :"schema"\.(\w+)/gm),
    functions: names(/^create (?:or replace )?function :"schema"\.(\w+)/gm),
    tables: names(/^create table :"schema"\.(\w+)/gm),
    sequences: names(/^create sequence :"schema"\.(\w+)/gm),
  }
}

function asInUse(error: unknown, schema: string): unknown {
  const { code, detail } = error as { code?: string; detail?: string }
  if (code !== '2BP01') return error
  return new TrunklineError(`Something depends on schema "${schema}": ${detail ?? 'the server does not say what'}.`, {
    code: 'schema_in_use',
    hint: 'Drop it first, or capture no table while uninstalling; then uninstall again.',
    details: { schema },
    cause: error,
  })
}
