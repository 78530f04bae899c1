import { InvalidInputError } from '../core/index.ts'
import { type Queryable, quoteIdentifier, quoteQualified } from '../postgres/index.ts'

/** One column that identifies a row. */
export interface KeyColumn {
  readonly name: string
  /** As in a cast: `integer`, `character varying(10)`. */
  readonly type: string
  /** Of a domain: of the type it is of. */
  readonly typeOid: number
}

/** What is followed of a captured table: the table, its key, and which rows and columns. */
export interface TableDescription {
  readonly oid: string
  readonly topicId: bigint
  /** Second key of the advisory lock on which its readers sleep. */
  readonly wakeKey: number
  /** False: its writers tell nobody (`wake => 'off'`), so it is polled. */
  readonly isAnnounced: boolean
  readonly schemaName: string
  readonly tableName: string
  /** Columns of a row, in the table's order. */
  readonly columns: readonly string[]
  /** True when `columns` are all of the table, so that a new one belongs to them. */
  readonly hasAllColumns: boolean
  /** Empty: the whole row is the key. */
  readonly key: readonly KeyColumn[]
  /** Columns of type json, and arrays of it: only they hold escapes that `decodable` takes away. Value: array or not. */
  readonly jsonColumns: ReadonlyMap<string, 'json' | 'json[]'>
  /** SQL condition of the capture; rows meet it before they enter the log. */
  readonly filter: string | undefined
  /** SQL condition of the caller. */
  readonly where: string | undefined
  /** Whether this role may lock the table: PostgreSQL 12 asks for SELECT on each partition, too. */
  readonly isLockable: boolean
  /** Rows may be in other tables: partitions, or tables that inherit from it. */
  readonly hasChildren: boolean
  /** Changes when the table, its capture or its partitions did. */
  readonly fingerprint: string
}

/** Which part of a table to follow. */
export interface TableSelection {
  /** As in SQL: `orders`, `app.orders`, `"Odd Schema"."T ü"`. */
  readonly table: string
  /** SQL over the table's columns. Default: all rows. */
  readonly where?: string | undefined
  /** Default: all columns that are captured. */
  readonly columns?: readonly string[] | undefined
}

interface TableRow {
  oid: string
  topic_id: string
  wake_key: number
  wake: string
  schema_name: string
  table_name: string
  rows: 'full' | 'keys'
  exclude: string[]
  filter: string | null
  captured_key: string[]
  is_lockable: boolean
  has_children: boolean
  fingerprint: string
  /** Without those for TRUNCATE of a partition, which one that came later has not: the fingerprint tells of it. */
  missing: string[]
  /** `oid`: of the type, of a domain the type it is of. */
  columns: { name: string; type: string; oid: number; key: number | null }[]
}

/** Looks a captured table up; throws when it is missing or not captured, or when the selection does not fit it. */
export async function describeTable(
  queryable: Queryable,
  schema: string,
  selection: TableSelection,
): Promise<TableDescription> {
  const s = quoteIdentifier(schema)
  const { rows } = await queryable.query<TableRow>(
    `select c.oid::text, t.id::text as topic_id, ${s}.wake_key(t.id) as wake_key, coalesce(t.wake, ${s}.wake_mode()) as wake,
       n.nspname as schema_name, c.relname as table_name, t.rows, t.exclude, t.filter, t.key_columns as captured_key,
       ${s}.table_fingerprint(c.oid) as fingerprint,
       current_setting('server_version_num')::integer >= 130000
         or (select bool_and(has_table_privilege(m.relation, 'SELECT')) from ${s}.table_tree(c.oid) as m) as is_lockable,
       c.relkind = 'p' or exists (select from pg_inherits as h where h.inhparent = c.oid) as has_children,
       array(select m.name || ' on ' || m.relation::regclass from ${s}.missing_triggers(t) as m
         where m.relation = c.oid or c.relkind <> 'p' or m.event not like 'after truncate%') as missing,
       (select coalesce(json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
           'oid', (with recursive base (type) as (
               select a.atttypid union select b.typbasetype from base join pg_type as b on b.oid = base.type and b.typtype = 'd'
             ) select b.oid::bigint from base join pg_type as b on b.oid = base.type and b.typtype <> 'd'),
           'key', (select k.place from unnest(i.indkey::smallint[]) with ordinality as k (number, place)
             where k.number = a.attnum and k.place <= i.indnkeyatts)) order by a.attnum), '[]')
         from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
     from ${s}.find_table($1) as f
     join pg_class as c on c.oid = f
     join pg_namespace as n on n.oid = c.relnamespace
     left join ${s}.topic as t on t.relation = c.oid and t.captured
     left join pg_index as i on i.indrelid = c.oid and i.indisprimary
       and not exists (select from pg_inherits as h where h.inhparent = c.oid and c.relkind <> 'p')`,
    [selection.table],
  )
  const row = rows[0]
  if (row?.topic_id === undefined || row.topic_id === null) throw notCaptured(selection.table, 'it is not captured')
  if (row.missing.length > 0)
    throw notCaptured(selection.table, `of its triggers ${row.missing.join(', ')} are missing, disabled or changed`)
  const key = keyOf(row)
  checkKey(row, key)
  const columns = selectedColumns(row, selection)
  const description: TableDescription = {
    oid: row.oid,
    topicId: BigInt(row.topic_id),
    wakeKey: row.wake_key,
    isAnnounced: row.wake !== 'off',
    schemaName: row.schema_name,
    tableName: row.table_name,
    columns,
    hasAllColumns: selection.columns === undefined && row.exclude.length === 0,
    key,
    jsonColumns: new Map(
      row.columns.flatMap(({ name, oid }) => (jsonTypes[oid] === undefined ? [] : [[name, jsonTypes[oid]]])),
    ),
    filter: row.filter ?? undefined,
    where: selection.where?.trim() === '' ? undefined : selection.where,
    isLockable: row.is_lockable,
    hasChildren: row.has_children,
    fingerprint: row.fingerprint,
  }
  await checkCondition(queryable, description, selection)
  return description
}

/** By the OID of the type. */
const jsonTypes: Readonly<Record<number, 'json' | 'json[]'>> = { 114: 'json', 199: 'json[]' }

function keyOf(row: TableRow): KeyColumn[] {
  return row.columns
    .filter((column) => column.key !== null)
    .toSorted((a, b) => (a.key ?? 0) - (b.key ?? 0))
    .map((column) => ({ name: column.name, type: column.type, typeOid: column.oid }))
}

/** A key that the log does not hold cannot be followed: an excluded one, and with `rows: 'keys'` another than that of the time of capture. */
function checkKey(row: TableRow, key: readonly KeyColumn[]): void {
  const now = key.map((column) => column.name)
  const hidden = now.find((name) => row.exclude.includes(name))
  if (hidden !== undefined) {
    throw notCaptured(
      `${row.schema_name}.${row.table_name}`,
      `its primary key is now (${now.join(', ')}), and "${hidden}" is excluded from its capture`,
    )
  }
  if (row.rows === 'full' || now.join('\0') === row.captured_key.join('\0')) return
  throw notCaptured(
    `${row.schema_name}.${row.table_name}`,
    `its primary key is now (${now.join(', ')}) and was (${row.captured_key.join(', ')}) when it was captured with rows 'keys'`,
  )
}

function selectedColumns(row: TableRow, selection: TableSelection): string[] {
  const captured = row.columns.map((column) => column.name).filter((name) => !row.exclude.includes(name))
  if (selection.columns === undefined) return captured
  const unknown = selection.columns.find((name) => !captured.includes(name))
  if (unknown !== undefined) {
    throw new InvalidInputError(
      row.exclude.includes(unknown)
        ? `Column "${unknown}" of ${selection.table} is excluded from capture.`
        : `${selection.table} has no column "${unknown}".`,
      {
        code: 'unknown_column',
        hint: `Captured columns: ${captured.join(', ')}.`,
        details: { table: selection.table, column: unknown },
      },
    )
  }
  const wanted = new Set([...selection.columns, ...keyOf(row).map((column) => column.name)])
  return captured.filter((name) => wanted.has(name))
}

async function checkCondition(
  queryable: Queryable,
  description: TableDescription,
  selection: TableSelection,
): Promise<void> {
  if (selection.where === undefined) return
  const table = quoteQualified(description.schemaName, description.tableName)
  try {
    await queryable.query(`select 1 from ${table} where (${selection.where}\n) limit 0`)
  } catch (error) {
    throw new InvalidInputError(
      `where of ${selection.table} is not a condition over its columns: ${(error as Error).message}.`,
      {
        code: 'invalid_filter',
        hint: "Write what could stand after WHERE, for example: amount > 0 and country = 'KR'.",
        cause: error,
      },
    )
  }
}

function notCaptured(table: string, why: string): InvalidInputError {
  return new InvalidInputError(`Table ${table} cannot be followed: ${why}.`, {
    code: 'not_captured',
    hint: `Run: trunkline capture '${table}', or await trunkline.capture('${table}').`,
    details: { table },
  })
}
