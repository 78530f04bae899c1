import { quoteIdentifier, quoteLiteral, quoteQualified } from '../postgres/index.ts'
import type { KeyColumn, TableDescription } from './table-description.ts'

/**
 * The statements that copy a table and that bring a copy from one snapshot to the next.
 *
 * A table with a key is followed by re-reading: the log says which keys were touched between the two snapshots, and the
 * same statement joins their present rows. The result is the table's exact state at the second snapshot, decoded by the
 * driver as any SELECT, whatever was captured and whatever DDL came in between. A table without a key is followed by the
 * images in the log: its rows are a multiset.
 */
export interface TableStatements {
  /** The table, if following reads it (without key it does not) and this role may lock it. */
  readonly lock: string | undefined
  /** Its oid, if it has no children. */
  readonly oid: string | undefined
  /** Columns before the row's own in `copy`: the key's texts, or the identity of a row without key. */
  readonly copyPrefix: number
  readonly copy: string
  /** Columns before the row's own in `follow` and `followFew`; the first is the operation. */
  readonly followPrefix: number
  /** For any number of changes, and any snapshot. `$1` to `$4`: see RoundStatement. */
  readonly follow: string
  /** The same for less than `fewRows` rows since a near snapshot, quicker to start; names a key once for each change of it. */
  readonly followFew: string
}

export function tableStatements(schema: string, table: TableDescription): TableStatements {
  return table.key.length === 0 ? keylessStatements(schema, table) : keyedStatements(schema, table)
}

function keyedStatements(schema: string, table: TableDescription): TableStatements {
  const s = quoteIdentifier(schema)
  const texts = (alias: string): string => table.key.map((column) => keyText(column, alias)).join(', ')
  const found = ownColumn(table, 'trunkline found')
  const operation = ownColumn(table, 'trunkline operation')
  const matches = table.key.map(({ name }) => `t.${quoteIdentifier(name)} = k.${quoteIdentifier(name)}`).join(' and ')
  const rows = `select true as ${found}, ${rowColumns(table, quoteIdentifier(table.tableName))} from ${tableName(table)}${where(table)}`
  const joined = (
    keys: string,
  ): string => `select k.${operation}, ${texts('k')}, t.${found}, ${texts('t')}, ${rowColumns(table, 't')}
from (${keys}) as k
left join (${rows}) as t on ${matches}`
  const all = changedRows(s, table, false)
  const few = changedRows(s, table, true)
  // A row that says so, also of an empty table, and then the bare rows.
  const keys = table.key.length
  const whole = `select '${wholeTable}', ${nulls(1 + 2 * keys + Math.max(1, table.columns.length))} where (select is_whole from step)
union all
select null, ${nulls(1 + keys)}, ${texts('t')}, ${rowColumns(table, 't')} from (${rows}) as t where (select is_whole from step)`
  return {
    lock: table.isLockable ? tableName(table) : undefined,
    oid: table.isLockable && !table.hasChildren ? table.oid : undefined,
    copyPrefix: table.key.length,
    copy: `select ${texts('t')}, ${rowColumns(table, 't')}
from (select * from ${tableName(table)}${where(table)}) as t`,
    followPrefix: 2 + 2 * table.key.length,
    follow: table.hasChildren
      ? joined(touchedKeys(s, table, all, true))
      : `with step as materialized (select ${isWorthWhole(table, all)} as is_whole)
${joined(touchedKeys(s, table, all, true))} where not (select is_whole from step)
union all
${whole}`,
    followFew: joined(touchedKeys(s, table, `${few} limit ${fewRows}`, false)),
  }
}

/** So many rows of `followFew` or more: there may be others. */
export const fewRows = 100

/** Stands for the operation where a step is told by the table's present rows, all of them. */
export const wholeTable = 'w'

/**
 * Whether so many rows changed that the whole table is cheaper than to look each key up: more than `$4` changes, and no
 * more pages than that (with what is stored out of line), so that neither wide rows nor dead ones are read for little.
 */
function isWorthWhole(table: TableDescription, changed: string): string {
  return `case when exists (select from (${changed}) as c offset $4)
  then coalesce(pg_table_size(${table.oid}), 0) / 8192 <= $4 else false end`
}

/** The keys that changes name, of the columns' types. */
function touchedKeys(s: string, table: TableDescription, changed: string, isDistinct: boolean): string {
  // t and x carry no image, and still are a row.
  const images = `from (${changed}) as c
  cross join lateral (values (${isDistinct ? 'c.old' : oldOfOtherKey(s, table)}), (c.new)) as i (image)`
  const isRow = `i.image is not null or c.operation in ('t', 'x')`
  const names = table.key.map(({ name }) => quoteIdentifier(name))
  const operation = ownColumn(table, 'trunkline operation')
  if (!table.key.every(({ typeOid }) => plainTypes.has(typeOid))) {
    const typed = table.key.map(({ type }, place) => `${names[place]} ${type}`).join(', ')
    const texts = table.key.map((column) => keyText(column, 'k')).join(', ')
    // Keys are told apart by their text, not by their type's equality: 1.0 and 1.00 are two keys of which the join finds
    // the one row, so that a copy that holds the row under the one text learns of the other.
    const distinct = isDistinct ? `distinct on (c.operation in ('t', 'x'), c.operation = 'x', ${texts}) ` : ''
    return `select ${distinct}c.operation as ${operation}, k.*
  ${images} left join lateral json_to_record(${s}.decodable(i.image)) as k (${typed}) on true where ${isRow}`
  }
  const fields = table.key.map(
    ({ name }, place) => `${s}.decodable(i.image) ->> ${quoteLiteral(name)} as ${names[place]}`,
  )
  const typed = table.key.map(({ type }, place) => `c.${names[place]}::${type} as ${names[place]}`)
  // Texts of one key may differ (timestamptz of two writers): it is then named twice, which does no harm.
  return `select c.${operation}, ${typed.join(', ')} from (
  select ${isDistinct ? 'distinct ' : ''}case when c.operation in ('t', 'x') then c.operation else 'u' end as ${operation}, ${fields.join(', ')}
  ${images} where ${isRow}) as c`
}

/** The old image, if it has another key than the new one: else the row would be read, sent and decoded twice. */
function oldOfOtherKey(s: string, table: TableDescription): string {
  const keyOf = (image: string): string =>
    `row(${table.key.map(({ name }) => `${s}.decodable(${image}) ->> ${quoteLiteral(name)}`).join(', ')})`
  return `case when c.new is null or ${keyOf('c.old')} is distinct from ${keyOf('c.new')} then c.old end`
}

const timestamptzOid = 1184
const inetOid = 869

/**
 * Types whose JSON is a number, a boolean or the text that the type reads: bool, bytea, "char", name, int8, int2, int4,
 * text, oid, float4, float8, bpchar, varchar, date, time, timestamp, timestamptz, interval, timetz, numeric, uuid. Taking a
 * field as text costs a fifth of json_to_record.
 */
const plainTypes: ReadonlySet<number> = new Set([
  16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950,
])

/** The text of a key's column, the same in every session, and as the driver gets it. */
function keyText(column: KeyColumn, alias: string): string {
  const value = `${alias}.${quoteIdentifier(column.name)}`
  if (column.typeOid === timestamptzOid) return `(${value} at time zone 'UTC')::text`
  // A cast would add the mask that output leaves out: 10.0.0.1/32.
  return column.typeOid === inetOid ? `abbrev(${value})` : `${value}::text`
}

function keylessStatements(schema: string, table: TableDescription): TableStatements {
  const s = quoteIdentifier(schema)
  // As the table is called, which the caller's condition may say.
  const row = quoteIdentifier(table.tableName)
  const identifier = ownColumn(table, 'trunkline identity')
  const record = (image: string): string => `json_populate_record(null::${tableName(table)}, ${s}.decodable(${image}))`
  // An image as a row of the table as it is now, or nothing where the condition does not hold.
  const decoded = (image: string): string =>
    `(select ${identity(table, row)} as ${identifier}, ${rowColumns(table, row)} from ${record(image)} as ${row}${whereAll([`${image} is not null`, table.where])})`
  const columns = table.columns.map((name) => imageColumn(table, name, 'new_row')).join(', ')
  const follow = (
    isFew: boolean,
  ): string => `select "trunkline change".operation, old_row.${identifier}, new_row.${identifier}, ${columns === '' ? 'null' : columns}
from (${isFew ? `${changedRows(s, table, true)} limit ${fewRows}` : changedRows(s, table, false)}) as "trunkline change"
left join lateral ${decoded('"trunkline change".old')} as old_row on true
left join lateral ${decoded('"trunkline change".new')} as new_row on true
order by "trunkline change".id`
  // json keeps its spaces in the table, and loses those around it in an image.
  const copied =
    table.jsonColumns.size === 0
      ? `${s}.decodable(${identity(table, 't')}::json)::text`
      : `(select ${identity(table, 'n')} from ${record('row_to_json(t.*)')} as n)`
  return {
    lock: undefined,
    oid: undefined,
    copyPrefix: 1,
    copy: `select ${copied}, ${rowColumns(table, 't')} from (select * from ${tableName(table)}${where(table)}) as t`,
    followPrefix: 3,
    follow: follow(false),
    followFew: follow(true),
  }
}

/** What tells a row without key from others: all that is followed of it. */
function identity(table: TableDescription, alias: string): string {
  if (table.hasAllColumns) return `row_to_json(${alias}.*)::text`
  const columns = table.columns.map((name) => `${alias}.${quoteIdentifier(name)}`).join(', ')
  return `(select row_to_json(i.*)::text from (select ${columns}) as i)`
}

/** A column of a decoded image, with the escapes back that `decodable` made into text; an array doubles backslashes. */
function imageColumn(table: TableDescription, name: string, alias: string): string {
  const value = `${alias}.${quoteIdentifier(name)}`
  const type = table.jsonColumns.get(name)
  if (type === undefined) return value
  const marker = quoteLiteral('@trunkline:u')
  const escape = type === 'json' ? "chr(92) || 'u'" : "repeat(chr(92), 2) || 'u'"
  return `(case when strpos(${value}::text, ${marker}) = 0 then ${value} else replace(${value}::text, ${marker}, ${escape})::${type} end)`
}

/**
 * Rows of the log that are visible now and were not in the snapshot before. One range of the index when that snapshot is
 * near; else two, so that a transaction that has long been open costs nothing.
 */
function changedRows(s: string, table: TableDescription, isNear: boolean): string {
  const ranges = isNear ? ['l.xid >= $1 and (l.xid >= $2 or l.xid = any ($3))'] : ['l.xid >= $2', 'l.xid = any ($3)']
  return [0, 1, 2]
    .flatMap((slot) =>
      ranges.map(
        (range) =>
          `select l.id, l.operation, l.old, l.new from ${s}.log_${slot} as l where l.topic = ${table.topicId} and ${range}`,
      ),
    )
    .join(' union all ')
}

function nulls(count: number): string {
  return Array<string>(count).fill('null').join(', ')
}

/** A column of ours beside those of the table, which may have any name. */
function ownColumn(table: TableDescription, name: string): string {
  let free = name
  for (let number = 2; table.columns.includes(free); number += 1) free = `${name} ${number}`
  return quoteIdentifier(free)
}

/** The columns of a row. Listed by name even when they are all: a hidden marker column must not come along. */
function rowColumns(table: TableDescription, alias: string): string {
  return table.columns.length === 0
    ? 'null'
    : table.columns.map((name) => `${alias}.${quoteIdentifier(name)}`).join(', ')
}

function where(table: TableDescription): string {
  return whereAll([table.filter, table.where])
}

function whereAll(conditions: readonly (string | undefined)[]): string {
  // The line break ends a comment that a condition may end with.
  const all = conditions.filter((condition) => condition !== undefined).map((condition) => `(${condition}\n)`)
  return all.length === 0 ? '' : ` where ${all.join(' and ')}`
}

function tableName(table: TableDescription): string {
  return quoteQualified(table.schemaName, table.tableName)
}
