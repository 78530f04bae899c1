import { InvalidInputError } from '../core/index.ts'
import { checkServerVersion, type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { Applied, SchemaState } from './plan.ts'

/** Longest name of a schema in bytes; PostgreSQL cuts longer ones off. */
const schemaNameBytesMax = 63

/** Throws unless the name can be a schema's. */
export function checkSchemaName(schema: string): void {
  const bytes = Buffer.byteLength(schema)
  const found =
    bytes === 0
      ? 'is empty'
      : bytes > schemaNameBytesMax
        ? `has ${bytes} bytes, at most ${schemaNameBytesMax} are allowed`
        : schema.startsWith('pg_') || schema === 'information_schema'
          ? `is "${schema}", which PostgreSQL keeps for itself`
          : schema.includes('\0')
            ? 'contains a zero byte'
            : undefined
  if (found === undefined) return
  throw new InvalidInputError(`The name of the schema ${found}.`, {
    code: 'invalid_schema',
    hint: 'The default is trunkline.',
    details: { schema },
  })
}

// pg_class instead of to_regclass(): that fails for a role without USAGE of the schema.
const overviewQuery = `
  select
    current_setting('server_version_num')::integer as version,
    pg_catalog.pg_is_in_recovery() as standby,
    n.oid is not null as schema_exists,
    exists (select from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relname = 'migration'
      and exists (select from pg_catalog.pg_class as l where l.relnamespace = n.oid and l.relname = 'routine')) as has_bookkeeping,
    array(
      select c.relname::text from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union select p.proname || '()' from pg_catalog.pg_proc as p where p.pronamespace = n.oid
      order by 1
    ) as content
  from (select) as one
  left join pg_catalog.pg_namespace as n on n.nspname = $1`

interface Overview {
  version: number
  standby: boolean
  schema_exists: boolean
  has_bookkeeping: boolean
  content: string[]
}

/** What the server has of a schema. Needs no right but, where there is bookkeeping, to read it. */
export async function readState(db: Queryable, schema: string): Promise<SchemaState & { readonly isStandby: boolean }> {
  const { rows } = await db.query<Overview>(overviewQuery, [schema])
  const overview = rows[0]
  if (overview === undefined) throw new Error('Expected one row about the schema, found none.')
  checkServerVersion(overview.version)
  return {
    isStandby: overview.standby,
    schemaExists: overview.schema_exists,
    applied: overview.has_bookkeeping ? await readApplied(db, schema) : undefined,
    strangers: overview.has_bookkeeping ? [] : overview.content,
  }
}

async function readApplied(db: Queryable, schema: string): Promise<Applied> {
  const place = quoteIdentifier(schema)
  const migrations = await db.query<{ number: number; name: string; checksum: string }>(
    `select number::integer as number, name, checksum from ${place}.migration order by number`,
  )
  const routines = await db.query<{ name: string; checksum: string; version: string }>(
    `select name, checksum, version from ${place}.routine order by name`,
  )
  return {
    migrations: new Map(migrations.rows.map(({ number, name, checksum }) => [number, { name, checksum }])),
    routines: new Map(routines.rows.map(({ name, checksum, version }) => [name, { checksum, version }])),
  }
}
