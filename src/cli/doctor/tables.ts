import { messageOf } from '../../core/index.ts'
import { quoteIdentifier, sqlStateOf } from '../../postgres/index.ts'
import { type TableStatus, tableStatuses } from '../status-report.ts'
import { error, type Finding, info, type Patient, warning } from './finding.ts'

/** Whether each captured table still is captured, whole and by the rules it was captured by. */
export async function checkTables(patient: Patient): Promise<Finding[]> {
  const tables = (await tableStatuses(patient.db, patient.schema)).filter(({ captured }) => captured)
  const findings = [
    ...checkTriggers(tables),
    ...(await checkSurplus(patient, tables)),
    ...(await checkDisabledClones(patient)),
  ]
  for (const table of tables.filter(({ exists }) => exists)) findings.push(...(await checkRules(patient, table)))
  return [
    ...findings,
    ...(await checkUnlogged(patient)),
    ...(await checkRowSecurity(patient)),
    ...(await checkPartitionOwners(patient, tables)),
    ...(await checkReplicationRole(patient)),
    ...(await checkSubscriptions(patient)),
    ...(await checkAttachHazard(patient)),
  ]
}

function checkTriggers(tables: readonly TableStatus[]): Finding[] {
  return tables.flatMap((table) => {
    if (!table.exists) {
      if (table.replaced) {
        return error(
          'capture_lost',
          `${table.table} was captured and is another table now (restored, or dropped and created again), which is not captured.`,
          `Run: ${captureCommandOf(table)}`,
        )
      }
      return info(
        'table_dropped',
        `${table.table} is captured and was dropped.`,
        'Nothing to do: its rows leave the log in time.',
      )
    }
    if (table.missingTriggers.length === 0) return []
    const names = table.missingTriggers.join(', ')
    return error(
      'triggers_missing',
      `${table.table} lacks the triggers ${names}, or they are disabled or other ones: changes can be missed.`,
      `Run: ${captureCommandOf(table)}`,
    )
  })
}

/** Triggers that no capture wants: of another way of capture, of a restore, renamed. */
async function checkSurplus({ db, schema }: Patient, tables: readonly TableStatus[]): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string; names: string[] }>(
    `select format('%I.%I', n.nspname, c.relname) as "table", array_agg(s.name order by s.name) as names
    from ${quoteIdentifier(schema)}.stray_triggers() as s
    join pg_class as c on c.oid = s.relation join pg_namespace as n on n.oid = c.relnamespace
    group by 1 order by 1`,
  )
  return rows.map(({ table, names }) => {
    const known = tables.find((one) => one.table === table)
    return error(
      'triggers_surplus',
      `${table} has the triggers ${names.join(', ')}, which no capture needs (left by a restore or a renaming?): rows can be written twice.`,
      `Run: ${known === undefined ? `trunkline release ${shellQuoted(table)}` : captureCommandOf(known)}`,
    )
  })
}

async function checkDisabledClones({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string }>(
    `select distinct t.tgrelid::regclass::text as "table" from pg_trigger as t
    join pg_proc as p on p.oid = t.tgfoid join pg_namespace as n on n.oid = p.pronamespace
    join pg_class as c on c.oid = t.tgrelid
    where n.nspname = $1 and c.relispartition and t.tgenabled in ('D', 'R')`,
    [schema],
  )
  return rows.map(({ table }) =>
    error(
      'triggers_disabled',
      `The triggers of partition ${table} are disabled: its changes are missed.`,
      `alter table ${table} enable trigger user`,
    ),
  )
}

/** Asks the server whether the capture would be accepted now. Needs the rights of the owner. */
async function checkRules({ db, schema }: Patient, table: TableStatus): Promise<Finding[]> {
  const s = quoteIdentifier(schema)
  try {
    const { rows } = await db.query<{ key: string[] }>(
      `select (${s}.checked_topic(t.relation, t.name, t.rows, t."exclude", t.filter, t.wake)).key_columns as key
      from ${s}.topic as t where t.id = $1 and t.relation is not null`,
      [table.topic],
    )
    const now = rows[0]?.key ?? []
    if (now.join() === table.key.join()) return []
    return [
      error(
        'key_changed',
        `The primary key of ${table.table} is (${now.join(', ')}); it was captured with (${table.key.join(', ')}).`,
        `Run: ${captureCommandOf(table)}`,
      ),
    ]
  } catch (failure) {
    const state = sqlStateOf(failure)
    if (state === '42501' || state === 'TL003') return []
    if (state?.startsWith('TL') !== true) throw failure
    return [
      error(
        'capture_broken',
        `The capture of ${table.table} does not fit the table any more (${messageOf(failure)}): every change makes readers take a fresh copy.`,
        `Capture it again with options that fit: trunkline capture ${shellQuoted(table.table)} …`,
      ),
    ]
  }
}

async function checkUnlogged({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string }>(
    `select distinct c.oid::regclass::text as "table" from ${quoteIdentifier(schema)}.topic as t
    cross join lateral ${quoteIdentifier(schema)}.table_tree(t.relation) as m join pg_class as c on c.oid = m.relation
    where t.captured and c.relpersistence = 'u' order by 1`,
  )
  return rows.map(({ table }) =>
    error(
      'table_unlogged',
      `${table} is unlogged: a crash empties it without firing a trigger.`,
      `alter table ${table} set logged`,
    ),
  )
}

async function checkRowSecurity({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string; forced: boolean }>(
    `select c.oid::regclass::text as "table", c.relforcerowsecurity as forced
    from ${quoteIdentifier(schema)}.topic as t join pg_class as c on c.oid = t.relation
    where t.captured and c.relrowsecurity order by 1`,
  )
  return rows.map(({ table, forced }) =>
    warning(
      'row_security',
      `${table} has row level security: the log tells of all its rows, a cache holds those that its role may see.`,
      `Let caches connect as a role that sees all of them: one with BYPASSRLS${forced ? '' : ", or the table's owner"}.`,
    ),
  )
}

/** A partition's row trigger is a clone: who makes the partition must be allowed to call its function. */
async function checkPartitionOwners({ db, schema }: Patient, tables: readonly TableStatus[]): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string; owner: string }>(
    `select distinct format('%I.%I', m.nspname, c.relname) as "table", pg_get_userbyid(c.relowner)::text as owner
    from pg_class as c join pg_namespace as m on m.oid = c.relnamespace
    join pg_trigger as t on t.tgrelid = c.oid and not t.tgisinternal
    join pg_proc as p on p.oid = t.tgfoid join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = $1 and c.relkind = 'p' and t.tgtype & 1 = 1 and not has_function_privilege(c.relowner, p.oid, 'EXECUTE')`,
    [schema],
  )
  return rows.map(({ table, owner }) => {
    const captured = tables.find((one) => one.table === table)
    return error(
      'partition_denied',
      `"${owner}", who owns ${table} now, may not call its trigger function: a new partition cannot be made.`,
      `Run: ${captured === undefined ? `trunkline capture ${shellQuoted(table)}` : captureCommandOf(captured)}`,
    )
  })
}

async function checkReplicationRole({ db }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ whose: string }>(
    `select coalesce('role ' || r.rolname, 'every role') || coalesce(' in database ' || d.datname, '') as whose
    from pg_db_role_setting as s
    left join pg_roles as r on r.oid = s.setrole
    left join pg_database as d on d.oid = s.setdatabase
    where (s.setdatabase = 0 or d.datname = current_database())
      and exists (select from unnest(s.setconfig) as c where c = 'session_replication_role=replica')`,
  )
  return rows.map(({ whose }) =>
    error(
      'replication_role',
      `session_replication_role is replica for ${whose}: its writes fire no trigger.`,
      'alter role … reset session_replication_role, or make sure it writes no captured table.',
    ),
  )
}

async function checkSubscriptions({ db, schema }: Patient): Promise<Finding[]> {
  try {
    const { rows } = await db.query<{ table: string }>(
      `select distinct r.srrelid::regclass::text as "table" from pg_subscription_rel as r
      join ${quoteIdentifier(schema)}.topic as t on t.captured and r.srrelid in (select relation from ${quoteIdentifier(schema)}.table_tree(t.relation))`,
    )
    return rows.map(({ table }) =>
      error(
        'table_subscribed',
        `${table} is fed by a logical subscription, whose changes fire no trigger.`,
        'Capture it on the publisher.',
      ),
    )
  } catch (failure) {
    if (sqlStateOf(failure) === '42501') return []
    throw failure
  }
}

/** Triggers with transition tables keep a table from becoming a partition on PostgreSQL 12. */
async function checkAttachHazard({ db, schema, version }: Patient): Promise<Finding[]> {
  if (version >= 130_000) return []
  const { rows } = await db.query<{ tables: string[] | null }>(
    `select array_agg(distinct g.tgrelid::regclass::text) as tables from pg_trigger as g
    join pg_proc as p on p.oid = g.tgfoid join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = $1 and (g.tgoldtable is not null or g.tgnewtable is not null)`,
    [schema],
  )
  const tables = rows[0]?.tables ?? []
  if (tables.length === 0) return []
  const some = tables.slice(0, 5).join(', ') + (tables.length > 5 ? ', …' : '')
  return [
    info(
      'attach_hazard',
      `On PostgreSQL 12 a captured table cannot be attached as a partition or inherit from another: ${some}.`,
      'Where that is needed: release it, attach it, capture it again.',
    ),
  ]
}

/** Triggers of the application that fire after a statement and may write to the table itself, before it is captured. */
export async function checkOwnTriggers({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ table: string; names: string[] }>(
    `select g.tgrelid::regclass::text as "table", array_agg(g.tgname::text order by g.tgname) as names
    from pg_trigger as g
    join ${quoteIdentifier(schema)}.topic as t on t.relation = g.tgrelid and t.captured and t.rows = 'full'
    join pg_proc as p on p.oid = g.tgfoid join pg_namespace as n on n.oid = p.pronamespace
    -- Bit 2: BEFORE; bit 64: INSTEAD.
    where n.nspname <> $1 and not g.tgisinternal and g.tgtype & 66 = 0 and g.tgenabled <> 'D'
      and p.prosrc ~* ('\\m(insert|update|delete|merge)\\M.*\\m' || (select c.relname from pg_class as c where c.oid = g.tgrelid) || '\\M')
    group by g.tgrelid`,
    [schema],
  )
  return rows.map(({ table, names }) =>
    warning(
      'after_trigger_writes',
      `The AFTER triggers ${names.join(', ')} of ${table} seem to write to ${table} itself: such changes stand in the log before those of the statement that fired them.`,
      'Let a BEFORE trigger change the row instead.',
    ),
  )
}

function captureCommandOf(table: TableStatus): string {
  return [
    'trunkline capture',
    shellQuoted(table.table),
    ...(table.rows === 'full' ? [] : [`--rows ${table.rows}`]),
    ...table.exclude.map((column) => `--exclude ${shellQuoted(column)}`),
    ...(table.where === null ? [] : [`--where ${shellQuoted(table.where)}`]),
    ...(table.wake === null ? [] : [`--wake ${table.wake}`]),
  ].join(' ')
}

function shellQuoted(text: string): string {
  return /^[\w.]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}
