import { InvalidInputError } from '../core/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** How JSON made by `row_to_json` is read back: what of a value is exact, and where to look inside of it. */
export type ValueShape =
  | { readonly kind: 'plain' }
  /** int8 and numeric: digits that a double may not hold. */
  | { readonly kind: 'exact' }
  | { readonly kind: 'bytea' }
  /** json and jsonb: whatever their author wrote. */
  | { readonly kind: 'json'; readonly isBinary: boolean }
  | { readonly kind: 'array'; readonly of: ValueShape }
  | { readonly kind: 'composite'; readonly fields: ReadonlyMap<string, ValueShape> }

export interface TopicColumn {
  readonly name: string
  readonly typeOid: string
  /** `atttypmod`; -1: none. */
  readonly typeModifier?: number | undefined
  readonly shape: ValueShape
}

/** A captured table as it is now. */
export interface TopicTable {
  readonly schemaName: string
  readonly tableName: string
  /** Of the table in its order, without what is excluded from capture; of `rows: 'keys'` the key alone. */
  readonly columns: readonly TopicColumn[]
  /** Empty: the whole row is the key. */
  readonly keyColumns: readonly string[]
}

export interface TopicDescription {
  readonly id: string
  /** `schema.table` of a captured table, as it is called now. */
  readonly name: string
  readonly isCaptured: boolean
  /** Undefined: an emitted topic, or the table was dropped. */
  readonly table: TopicTable | undefined
  /** What `log_page` must agree with for this description to be good. */
  readonly signature: string
}

/** What a reader reads. */
export interface TopicSelection {
  readonly ids: readonly string[]
  /** `schema.table`: each captured table of such a name, also one that is dropped and made anew while it is read. */
  readonly tables: readonly string[]
}

/** Tables and topics that a reader is to read; undefined: all. Throws for a table that was never captured. */
export async function resolveTopics(
  queryable: Queryable,
  schema: string,
  wanted: { readonly tables?: readonly string[] | undefined; readonly topics?: readonly string[] | undefined },
): Promise<TopicSelection | undefined> {
  if (wanted.tables === undefined && wanted.topics === undefined) return undefined
  const s = quoteIdentifier(schema)
  const ids: string[] = []
  // The topic of a captured table has a dot; one of events may.
  const names = (wanted.topics ?? []).filter((topic) => topic.includes('.'))
  for (const table of wanted.tables ?? []) {
    const { rows } = await queryable.query<{ id: string; name: string }>(
      `select t.id::text, n.nspname || '.' || c.relname as name from ${s}.find_table($1) as f join ${s}.topic as t on t.relation = f
       join pg_class as c on c.oid = f join pg_namespace as n on n.oid = c.relnamespace`,
      [table],
    )
    const [found] = rows
    if (found === undefined) throw notCaptured(table)
    ids.push(found.id)
    names.push(found.name)
  }
  const { rows } = await queryable.query<{ id: string }>(
    `select hashtextextended(n, 0)::text as id from unnest($1::text[]) as n
     union
     select t.id::text from ${s}.topic as t join pg_class as c on c.oid = t.relation join pg_namespace as n on n.oid = c.relnamespace
     where n.nspname || '.' || c.relname = any ($1)`,
    [wanted.topics ?? []],
  )
  return { ids: [...new Set([...ids, ...rows.map((row) => row.id)])], tables: [...new Set(names)] }
}

interface TopicRow {
  id: string
  name: string
  relation: string | null
  schema_name: string | null
  table_name: string | null
  rows: 'full' | 'keys'
  exclude: string[]
  captured_key: string[]
  present_key: string[]
  columns: { name: string; type: string; modifier: number }[]
  signature: string
}

interface TypeRow {
  oid: string
  name: string
  base: string | null
  element: string | null
  fields: { name: string; type: string }[] | null
}

/** Describes topics; those that do not exist are left out. `ids` undefined: all captured tables. */
export async function describeTopics(
  queryable: Queryable,
  schema: string,
  ids: readonly string[] | undefined,
): Promise<TopicDescription[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await queryable.query<TopicRow>(
    `select distinct on (t.id) t.id::text, coalesce(n.nspname || '.' || c.relname, t.name) as name, t.relation::text,
       n.nspname as schema_name, c.relname as table_name, t.rows, t.exclude, t.key_columns as captured_key,
       array(select a.attname::text from pg_index as i cross join unnest(i.indkey::smallint[]) with ordinality as k (number, place)
         join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.number
         where i.indrelid = t.relation and i.indisprimary and k.place <= i.indnkeyatts
           and not exists (select from pg_inherits as h where h.inhparent = t.relation and c.relkind <> 'p')
         order by k.place) as present_key,
       coalesce((select json_agg(json_build_object('name', a.attname, 'type', a.atttypid::text, 'modifier', a.atttypmod) order by a.attnum)
         from pg_attribute as a where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped), '[]') as columns,
       ${s}.topic_signature(t.id) as signature
     from ${s}.topic as t
     left join pg_class as c on c.oid = t.relation
     left join pg_namespace as n on n.oid = c.relnamespace
     where case when $1::bigint[] is null then t.relation is not null else t.id = any ($1) end
     order by t.id, t.created_at`,
    [ids ?? null],
  )
  const oids = new Set(rows.flatMap((row) => row.columns.map((column) => column.type)))
  const shapes = await describeTypes(queryable, [...oids])
  return rows.map((row) => describeTopic(row, shapes))
}

function describeTopic(row: TopicRow, shapes: ReadonlyMap<string, ValueShape>): TopicDescription {
  const base = { id: row.id, name: row.name, isCaptured: row.relation !== null, signature: row.signature }
  if (row.schema_name === null || row.table_name === null) return { ...base, table: undefined }
  const keyColumns = row.rows === 'keys' || row.present_key.length === 0 ? row.captured_key : row.present_key
  const isInLog = (name: string): boolean =>
    !row.exclude.includes(name) && (row.rows === 'full' || row.captured_key.includes(name))
  const columns = row.columns
    .filter((column) => isInLog(column.name))
    .map(({ name, type, modifier }) => ({
      name,
      typeOid: type,
      typeModifier: modifier,
      shape: shapes.get(type) ?? plain,
    }))
  const names = new Set(columns.map((column) => column.name))
  return {
    ...base,
    table: {
      schemaName: row.schema_name,
      tableName: row.table_name,
      columns,
      keyColumns: keyColumns.every((name) => names.has(name)) ? keyColumns : [],
    },
  }
}

const plain: ValueShape = { kind: 'plain' }

/** Shapes of types by oid, looking into domains, arrays and composites. */
async function describeTypes(queryable: Queryable, oids: readonly string[]): Promise<Map<string, ValueShape>> {
  const shapes = new Map<string, ValueShape>()
  if (oids.length === 0) return shapes
  const { rows } = await queryable.query<TypeRow>(
    `with recursive reached (oid) as (
       select unnest($1::oid[])
       union
       select n.oid from reached as r
       cross join lateral (
         select case when t.typtype = 'd' then t.typbasetype when t.typlen = -1 then t.typelem end from pg_type as t where t.oid = r.oid
         union all
         select a.atttypid from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid
         where t.oid = r.oid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
       ) as n (oid)
       where n.oid <> 0
     )
     select t.oid::text, case when t.typnamespace = 'pg_catalog'::regnamespace then t.typname else '' end as name,
       case when t.typtype = 'd' then t.typbasetype::text end as base,
       case when t.typtype <> 'd' and t.typlen = -1 and t.typelem <> 0 then t.typelem::text end as element,
       (select json_agg(json_build_object('name', a.attname, 'type', a.atttypid::text)) from pg_attribute as a
         where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as fields
     from reached as r join pg_type as t on t.oid = r.oid`,
    [oids],
  )
  const byOid = new Map(rows.map((row) => [row.oid, row]))
  for (const oid of oids) shapes.set(oid, shapeOf(oid, byOid))
  return shapes
}

function shapeOf(oid: string, types: ReadonlyMap<string, TypeRow>): ValueShape {
  const type = types.get(oid)
  if (type === undefined) return plain
  if (type.base !== null) return shapeOf(type.base, types)
  if (type.element !== null) return { kind: 'array', of: shapeOf(type.element, types) }
  if (type.fields !== null) {
    return { kind: 'composite', fields: new Map(type.fields.map((field) => [field.name, shapeOf(field.type, types)])) }
  }
  switch (type.name) {
    case 'int8':
    case 'numeric':
      return { kind: 'exact' }
    case 'bytea':
      return { kind: 'bytea' }
    case 'json':
    case 'jsonb':
      return { kind: 'json', isBinary: type.name === 'jsonb' }
    default:
      return plain
  }
}

function notCaptured(table: string): InvalidInputError {
  return new InvalidInputError(`Table ${table} was never captured: the log has nothing of it.`, {
    code: 'not_captured',
    hint: `Run: trunkline capture '${table}', or await trunkline.capture('${table}').`,
    details: { table },
  })
}
