import { InvalidInputError } from '../core/index.ts'
import { quoteIdentifier, quoteLiteral } from '../postgres/index.ts'
import type { Plan } from './plan.ts'
import { currentRelease } from './release.ts'
import { checkSchemaName } from './state.ts'
import { stepsOf, transactionSettings } from './statements.ts'

/** What to print. */
export interface PrintOptions {
  readonly schema: string
  /** Print only what comes after the migration of this number: for a schema that has it. Default: from nothing. */
  readonly after?: number | undefined
}

/**
 * The migrations as one plain SQL file for psql, Flyway or any other tool: in one transaction, with the schema's name
 * put in and the bookkeeping written, so that `migrate` finds nothing to do afterwards.
 */
export function printMigration({ schema, after = -1 }: PrintOptions): string {
  checkSchemaName(schema)
  const release = currentRelease()
  const last = release.migrations.at(-1)?.number ?? 0
  if (!Number.isInteger(after) || after > last) {
    throw new InvalidInputError(`There is no migration ${after} to print from, the last one is ${last}.`, {
      code: 'invalid_argument',
      hint: 'The table migration in the schema says which ones are applied.',
      details: { after, last },
    })
  }
  const plan: Plan = {
    migrations: release.migrations.filter(({ number }) => number > after),
    routines: release.routines,
    newerRoutines: [],
  }
  const scope = after < 0 ? 'from nothing' : `for a schema that has migration ${after}`
  return [
    `-- trunkline ${release.version}, schema ${JSON.stringify(schema)}, ${scope}. Made by: trunkline migrate --print\n`,
    '-- Creates objects in that schema only. A tool that runs a file in a transaction of its own can leave out the first\n',
    '-- and the last statement.\n',
    'begin;\n',
    transactionSettings(),
    `\n-- what is there already\n\n${guard(schema, after)}`,
    ...stepsOf(plan, schema, release.version).map(({ name, sql }) => `\n-- ${name}\n\n${sql}`),
    '\ncommit;\n',
  ].join('')
}

/** Refuses a schema that the file was not printed for: that one relation exists already tells nobody what to do. */
function guard(schema: string, after: number): string {
  const bookkeeping = `exists (select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = ${quoteLiteral(schema)} and c.relname = 'migration')`
  const last = `(select max(m.number) from ${quoteIdentifier(schema)}.migration as m)`
  const refusal = `raise exception using errcode = 'TL005',`
  const name = quoteLiteral(schema)
  const body =
    after < 0
      ? `if ${bookkeeping} then
    ${refusal} message = format('trunkline already exists in schema %I, at migration %s', ${name}, ${last}),
      hint = format('Print only what comes after it: trunkline migrate --print --after %s.', ${last});
  end if;`
      : `if not ${bookkeeping} then
    ${refusal} message = format('schema %I has no trunkline', ${name}),
      hint = 'Print all of it: trunkline migrate --print.';
  elsif owner <> current_user then
    raise exception using errcode = 'TL003', message = format('schema %I belongs to %I, this is role %I', ${name}, owner, current_user),
      hint = format('Run the file as that role, or after: set role %I', owner);
  elsif ${last} <> ${after} then
    ${refusal} message = format('schema %I is at migration %s, this file is for one at ${after}', ${name}, ${last}),
      hint = format('Print what it lacks: trunkline migrate --print --after %s.', ${last});
  end if;`
  // What is made belongs to whom the rest belongs to: see owner.ts.
  const owner = `(select pg_catalog.pg_get_userbyid(c.relowner) from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace where n.nspname = ${quoteLiteral(schema)} and c.relname = 'migration')`
  return `do $trunkline$
declare
  owner constant name := ${owner};
begin
  ${body}
end $trunkline$;
`
}
