import { TrunklineError } from '../../core/index.ts'
import { quoteIdentifier } from '../../postgres/index.ts'
import { checkSchema, checkSchemaName } from '../../schema/index.ts'
import { error, type Finding, info, type Patient } from './finding.ts'

/** Whether the server, the schema and the role allow anything at all. A finding of severity error ends the visit. */
export async function checkFoundation(patient: Patient): Promise<Finding[]> {
  const { db, schema } = patient
  checkSchemaName(schema)
  const standby = await db.query<{ standby: boolean }>('select pg_is_in_recovery() as standby')
  if (standby.rows[0]?.standby === true) {
    return [
      error(
        'standby',
        'The server is a standby: nothing can be captured here, and its snapshots list no open transactions.',
        'Connect to the primary.',
      ),
    ]
  }
  const rights = await checkRights(patient)
  if (rights.some(({ severity }) => severity === 'error')) return rights
  try {
    await checkSchema(db, schema)
  } catch (failure) {
    if (!(failure instanceof TrunklineError)) throw failure
    const hint = failure.hint ?? 'Run: trunkline migrate'
    return [error(failure.code, failure.message.replace(` ${hint}`, ''), hint)]
  }
  return rights
}

async function checkRights({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ role: string; owns: boolean; reads: boolean }>(
    `select current_user::text as role,
      pg_has_role(n.nspowner, 'USAGE') as owns,
      has_schema_privilege(n.oid, 'USAGE') and coalesce(has_table_privilege(m.oid, 'SELECT') and has_table_privilege(c.oid, 'SELECT'), true) as reads
    from pg_namespace as n
    left join pg_class as c on c.relnamespace = n.oid and c.relname = 'log'
    left join pg_class as m on m.relnamespace = n.oid and m.relname = 'migration'
    where n.nspname = $1`,
    [schema],
  )
  const [found] = rows
  if (found === undefined || found.owns) return []
  if (!found.reads) {
    return [
      error(
        'no_privilege',
        `Role "${found.role}" may not read the log.`,
        `As the owner of the schema: select ${quoteIdentifier(schema)}.grant_reader('${found.role}')`,
      ),
    ]
  }
  return [
    info(
      'not_owner',
      `Role "${found.role}" does not own schema "${schema}": it can read, not migrate, capture or release. Some checks are left out.`,
      'Run doctor as the owner to see all.',
    ),
  ]
}
