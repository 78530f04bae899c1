import { quoteIdentifier, quoteLiteral, quoteQualified } from '../postgres/index.ts'
import type { TopicColumn, TopicDescription, TopicTable, ValueShape } from './reader-topics.ts'

/**
 * How images become the values that a SELECT of the table gives: the query decodes them to rows of the table, and the
 * driver reads their columns as any other. Columns of several tables share the columns of the result by type: it is not
 * wider than the widest of them needs.
 */
export interface TypedPlan {
  /** Columns of the derived table: the images as rows. */
  readonly records: string
  /** Columns of the result, named `s0`, `s1`, … . */
  readonly slots: string
  /** Text of the key's columns, as JSON. */
  readonly key: string
  /** By topic id. */
  readonly tables: ReadonlyMap<string, TypedTable>
}

export interface TypedTable {
  readonly table: TopicTable
  /** Name in the table and names of its slots in the result. */
  readonly columns: readonly { readonly name: string; readonly old: string; readonly new: string }[]
}

export function planTyped(schema: string, topics: readonly TopicDescription[]): TypedPlan {
  const captured = topics.flatMap((topic) => (topic.table === undefined ? [] : [{ id: topic.id, table: topic.table }]))
  const slots = new Slots()
  const tables = new Map<string, TypedTable>()
  for (const [index, { id, table }] of captured.entries()) {
    const claim = slots.claimer(id)
    const columns = table.columns.map((column) => ({
      name: column.name,
      old: claim(column, `o${index}`),
      new: claim(column, `n${index}`),
    }))
    tables.set(id, { table, columns })
  }
  return {
    records: captured.map(({ id, table }, index) => records(schema, id, table, index)).join(''),
    slots: slots.sql(),
    key: captured.length === 0 ? 'null::text' : `case q.topic ${captured.map(keyCase).join(' ')} end`,
    tables,
  }
}

/** Result columns by type: a table takes each at most once. */
class Slots {
  readonly #byType = new Map<string, string[][]>()

  /** For one table: gives a column its place and returns the place's name. */
  claimer(topicId: string): (column: TopicColumn, record: string) => string {
    const taken = new Map<string, number>()
    return (column, record) => {
      const type = slotType(column)
      const place = taken.get(type) ?? 0
      taken.set(type, place + 1)
      const places = this.#byType.get(type) ?? []
      this.#byType.set(type, places)
      const cases = (places[place] ??= [])
      cases.push(`when ${topicId} then ${fieldSql(column, record)}`)
      return slotName(type, place)
    }
  }

  sql(): string {
    return [...this.#byType]
      .flatMap(([type, places]) =>
        places.map((cases, place) => `, case q.topic ${cases.join(' ')} end as ${slotName(type, place)}`),
      )
      .join('')
  }
}

function slotName(type: string, place: number): string {
  return `s${type}_${place}`
}

/** The type's oid, but of columns that are cast on the way. */
function slotType(column: TopicColumn): string {
  return escapedDepth(column.shape) === undefined ? column.typeOid : `json${escapedDepth(column.shape)}`
}

function records(schema: string, id: string, table: TopicTable, index: number): string {
  const decoded = (image: string): string =>
    `case when p.topic = ${id} then json_populate_record(null::${quoteQualified(table.schemaName, table.tableName)}, ${quoteIdentifier(schema)}.decodable(p.${image})) end`
  return `, ${decoded('old')} as o${index}, ${decoded('new')} as n${index}`
}

function fieldSql(column: TopicColumn, record: string): string {
  const field = `(q.${record}).${quoteIdentifier(column.name)}`
  const depth = escapedDepth(column.shape)
  if (depth === undefined) return field
  // decodable() made the escapes that decoding refuses into text; a column of type json takes them back.
  const type = depth === 0 ? 'json' : 'json[]'
  const marked = quoteLiteral('@trunkline:u')
  const escape = `${'chr(92) || '.repeat(depth + 1)}'u'`
  return `(case when strpos(${field}::text, ${marked}) = 0 then ${field}::${type} else replace(${field}::text, ${marked}, ${escape})::${type} end)`
}

/** 0: json, 1: an array of json (its text doubles backslashes), undefined: no json. */
function escapedDepth(shape: ValueShape): 0 | 1 | undefined {
  if (shape.kind === 'json') return shape.isBinary ? undefined : 0
  return shape.kind === 'array' && escapedDepth(shape.of) === 0 ? 1 : undefined
}

function keyCase({ id, table }: { readonly id: string; readonly table: TopicTable }, index: number): string {
  const row = `coalesce(q.n${index}, q.o${index})`
  if (table.keyColumns.length === 0) return `when ${id} then row_to_json(${row})::text`
  const columns = table.keyColumns.map((name) => `(${row}).${quoteIdentifier(name)}`).join(', ')
  return `when ${id} then (select row_to_json(k)::text from (select ${columns}) as k)`
}
