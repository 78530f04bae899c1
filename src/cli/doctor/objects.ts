import { quoteIdentifier } from '../../postgres/index.ts'
import { error, type Finding, type Patient } from './finding.ts'

/** What writers and readers of the log cannot do without. */
const relations = [
  'installation',
  'log',
  'log_0',
  'log_1',
  'log_2',
  'log_id_seq',
  'reader',
  'slot',
  'tick',
  'topic',
] as const

/** Whether what the migrations made is all there. */
export async function checkObjects({ db, schema }: Patient): Promise<Finding[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<{ relations: string[]; routines: string[] }>(
    `select
      array(select r from unnest($2::text[]) as r
        where not exists (select from pg_class as c where c.relnamespace = n.oid and c.relname = r) order by r) as relations,
      array(select r.name from ${s}.routine as r
        where not exists (select from pg_proc as p where p.pronamespace = n.oid and p.proname = r.name)
          and not exists (select from pg_class as c where c.relnamespace = n.oid and c.relname = r.name) order by r.name) as routines
    from pg_namespace as n where n.nspname = $1`,
    [schema, relations],
  )
  const [{ relations: lost, routines } = { relations: [], routines: [] }] = rows
  const what = `Schema "${schema}" lacks ${[...lost, ...routines].join(', ')}.`
  if (lost.length > 0)
    return [error('schema_damaged', what, 'Restore them from a backup; or uninstall, migrate and capture anew.')]
  if (routines.length === 0) return []
  const names = routines.map((name) => `'${name}'`).join(', ')
  return [error('schema_damaged', what, `delete from ${s}.routine where name in (${names}), then: trunkline migrate`)]
}

/**
 * Whether trigger functions reach what they write to: they run as their owner, and what he may not do makes the application's
 * writes fail.
 */
export async function checkOwners({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ owner: string; others: string[]; denied: string[] }>(
    `with home as (
      select n.oid, c.relowner as owner from pg_namespace as n
      join pg_class as c on c.relnamespace = n.oid and c.relname = 'log' where n.nspname = $1
    )
    select pg_get_userbyid(h.owner)::text as owner,
      array(
        select c.relname::text from pg_class as c where c.relnamespace = h.oid and c.relkind in ('r', 'v', 'S') and c.relowner <> h.owner
        union all
        select p.proname || '()' from pg_proc as p where p.pronamespace = h.oid and p.proowner <> h.owner
        order by 1
      ) as others,
      array(
        select c.relname::text from pg_class as c
        where c.relnamespace = h.oid and c.relname in ('log_0', 'log_1', 'log_2', 'tick') and not has_table_privilege(h.owner, c.oid, 'INSERT')
        order by 1
      ) as denied
    from home as h`,
    [schema],
  )
  const [{ owner, others, denied } = { owner: '', others: [], denied: [] }] = rows
  const s = quoteIdentifier(schema)
  return [
    ...(others.length === 0
      ? []
      : [
          error(
            'owner_mixed',
            `Of schema "${schema}", which belongs to "${owner}", ${listed(others)} belong to others: writes to captured tables can fail.`,
            `As a superuser: alter table (sequence, view, function) ${s}.… owner to ${quoteIdentifier(owner)}`,
          ),
        ]),
    ...(denied.length === 0
      ? []
      : [
          error(
            'log_denied',
            `"${owner}", as whom triggers run, may not insert into ${denied.join(', ')}: writes to captured tables fail.`,
            `grant all on ${denied.map((name) => `${s}.${name}`).join(', ')} to ${quoteIdentifier(owner)}`,
          ),
        ]),
  ]
}

function listed(names: readonly string[]): string {
  return names.slice(0, 5).join(', ') + (names.length > 5 ? `, … (${names.length})` : '')
}
