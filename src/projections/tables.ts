import { InvalidInputError, TrunklineError } from '../core/index.ts'
import type { Queryable } from '../postgres/index.ts'
import type { Definition } from './projection-options.ts'
import type { Build, ProjectionStore } from './projection-store.ts'
import { builtAs, builtName, type TableName } from './table-name.ts'

/** How handlers that work on a build call a table. */
export function tableNameOf(build: Pick<Build, 'build' | 'state'>): (table: TableName) => string {
  return (table) => (build.state === 'live' ? table.sql : builtAs(table, build.build))
}

/**
 * Makes the tables of a first build under their own names, where they do not exist.
 *
 * @throws InvalidInputError `table_not_empty`, `unknown_table`.
 */
export async function makeLiveTables(db: Queryable, definition: Definition): Promise<string[]> {
  const { name, tables = [] } = definition
  await checkEmpty(db, definition)
  for (const { table, create } of tables) {
    if (await exists(db, table.sql)) continue
    if (create === undefined) await checkPresent(db, name, table)
    else await make(db, name, table.sql, create(table.sql, table.name))
  }
  return tables.map(({ table }) => table.sql)
}

/** A read model is made of all events from the first one on: into nothing. @throws InvalidInputError `table_not_empty`. */
export async function checkEmpty(db: Queryable, { name, tables = [] }: Definition): Promise<void> {
  for (const { table } of tables) {
    if (!(await exists(db, table.sql))) continue
    const { rows } = await db.query(`select from ${table.sql} limit 1`)
    if (rows.length === 0) continue
    throw new InvalidInputError(`Projection "${name}" begins, and its table ${table.sql} has rows already.`, {
      code: 'table_not_empty',
      hint: 'Empty it, or give the read model another name: it is made of all events from the first one on.',
    })
  }
}

/** Makes the tables of a build beside the live ones. Gives the names that they will have, and those that they have. */
export async function makeBuiltTables(
  db: Queryable,
  { name, tables = [] }: Definition,
  build: string,
): Promise<{ tables: string[]; builtAs: string[] }> {
  for (const { table, create } of tables) {
    const built = builtAs(table, build)
    if (create === undefined) await checkPresent(db, name, table)
    if (create !== undefined) await make(db, name, built, create(built, builtName(table, build)))
    else await db.query(`create table ${built} (like ${table.sql} including all)`)
  }
  return {
    tables: tables.map(({ table }) => table.sql),
    builtAs: tables.map(({ table }) => builtAs(table, build)),
  }
}

/** @throws TrunklineError `read_model_in_use`. InvalidInputError `no_privilege`. */
export async function checkExchangeable(
  store: ProjectionStore,
  db: Queryable,
  { name, tables: declared = [] }: Definition,
  old: readonly string[],
): Promise<void> {
  const tables = [...new Set([...old, ...declared.map(({ table }) => table.sql)])]
  const foreign = await store.foreignOf(db, tables)
  if (foreign.length > 0) {
    throw new InvalidInputError(
      `Projection "${name}" cannot be rebuilt by this role: ${foreign.join(', ')} is not its own.`,
      {
        code: 'no_privilege',
        hint: 'Rebuild as the owner of the tables.',
      },
    )
  }
  const copied = declared.filter(({ create }) => create === undefined).map(({ table }) => table.sql)
  const hung = [...(await store.hungOn(db, tables)), ...(await store.foreignKeysOf(db, tables, copied))]
  if (hung.length > 0) throw inUse(name, hung)
}

/** What others hung on the tables would be lost, or keeps them from being dropped. */
export function inUse(name: string, hung: readonly string[], cause?: unknown): TrunklineError {
  const some = hung.slice(0, 5).join(', ') + (hung.length > 5 ? ', …' : '')
  return new TrunklineError(`The tables of projection "${name}" cannot be exchanged for new ones: there is ${some}.`, {
    code: 'read_model_in_use',
    hint: 'It would be lost with the old tables: drop it, rebuild, and make it again.',
    details: { projection: name, hung },
    cause,
  })
}

async function checkPresent(db: Queryable, projection: string, table: TableName): Promise<void> {
  if (await exists(db, table.sql)) return
  throw new InvalidInputError(`Table ${table.sql} of projection "${projection}" does not exist.`, {
    code: 'unknown_table',
    hint: 'Create it, or declare how: tables: { name: (table) => SQL }.',
  })
}

async function make(db: Queryable, projection: string, table: string, statement: unknown): Promise<void> {
  if (typeof statement === 'string') await db.query(statement)
  if (typeof statement === 'string' && (await exists(db, table))) return
  throw new InvalidInputError(`Projection "${projection}": the SQL of its tables has not made ${table}.`, {
    code: 'invalid_option',
    hint: 'Return one text that creates the table by the name that the function is given: (table) => `create table ${table} (…)`.',
  })
}

async function exists(db: Queryable, table: string): Promise<boolean> {
  const { rows } = await db.query<{ exists: boolean }>('select to_regclass($1) is not null as exists', [table])
  return rows[0]?.exists === true
}
