import { lockTimeoutMs, quoteIdentifier, quoteLiteral } from '../postgres/index.ts'
import type { Plan } from './plan.ts'
import { forSchema, type Migration, type SqlFile } from './release.ts'

/** How long one statement of a migration may take, in milliseconds. */
const statementTimeoutMs = 60_000

/** One step of a migration's transaction. */
export interface Step {
  /** For messages: `migration 0001_change_log`. */
  readonly name: string
  readonly sql: string
}

/**
 * What a transaction that migrates sets for itself. Function bodies are not checked when they are made, so that routines
 * may name each other in any order.
 */
export function transactionSettings(): string {
  return `set local lock_timeout = ${quoteLiteral(`${lockTimeoutMs}ms`)};
set local statement_timeout = ${quoteLiteral(`${statementTimeoutMs}ms`)};
set local client_encoding = 'UTF8';
set local standard_conforming_strings = on;
set local check_function_bodies = off;
set local search_path = pg_catalog;
`
}

/** The steps of a plan in order, bookkeeping included. */
export function stepsOf(plan: Plan, schema: string, version: string): Step[] {
  return [
    ...(plan.migrations.some(({ number }) => number === 0) ? [createSchema(schema)] : []),
    ...plan.migrations.map((migration) => migrationStep(migration, schema)),
    ...plan.routines.map((routine) => routineStep(routine, schema, version)),
  ]
}

/** `create schema if not exists` would demand the right to create schemas also where it exists. */
function createSchema(schema: string): Step {
  return {
    name: 'the schema',
    sql: `do $trunkline$ begin
  if not exists (select from pg_catalog.pg_namespace where nspname = ${quoteLiteral(schema)}) then
    create schema ${quoteIdentifier(schema)};
  end if;
end $trunkline$;
`,
  }
}

function migrationStep(migration: Migration, schema: string): Step {
  const values = [String(migration.number), quoteLiteral(migration.name), quoteLiteral(migration.checksum)]
  return {
    name: `migration ${migration.name}`,
    sql: `${forSchema(migration.text, schema)}
insert into ${quoteIdentifier(schema)}.migration (number, name, checksum)
values (${values.join(', ')});
`,
  }
}

function routineStep(routine: SqlFile, schema: string, version: string): Step {
  const values = [routine.name, routine.checksum, version].map(quoteLiteral)
  return {
    name: `routine ${routine.name}`,
    sql: `${forSchema(routine.text, schema)}
insert into ${quoteIdentifier(schema)}.routine (name, checksum, version)
values (${values.join(', ')})
on conflict (name) do update set checksum = excluded.checksum, version = excluded.version, applied_at = now();
`,
  }
}
