import { InvalidInputError } from '../core/index.ts'
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
    ...stepsOf(plan, schema, release.version).map(({ name, sql }) => `\n-- ${name}\n\n${sql}`),
    '\ncommit;\n',
  ].join('')
}
