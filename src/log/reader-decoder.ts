import type { Queryable } from '../postgres/index.ts'
import { type Change, messageIdOf, operationOf, rememberTable } from './change.ts'
import { decodeImage, keyOf, parseExact } from './decode-json.ts'
import { planTyped, type TypedPlan, type TypedTable } from './decode-typed.ts'
import { type PageRow, pageStatement } from './reader-page.ts'
import { describeTopics, type TopicDescription, type TopicSelection } from './reader-topics.ts'

/** `typed`: as a SELECT through the driver; `json`: as JSON with every digit. */
export type Decoding = 'typed' | 'json'

/** Makes changes of rows, by descriptions of topics that are renewed when a page disagrees with them. */
export class ChangeDecoder {
  readonly schema: string
  readonly decoding: Decoding
  /** Undefined: all. */
  readonly selection: TopicSelection | undefined
  readonly #queryable: Queryable
  #topics: Map<string, TopicDescription> | undefined
  #plan: TypedPlan | undefined

  constructor(queryable: Queryable, schema: string, decoding: Decoding, selection: TopicSelection | undefined) {
    this.#queryable = queryable
    this.schema = schema
    this.decoding = decoding
    this.selection = selection
  }

  /** The statement that reads pages as this decoder takes them. */
  async statement(decoding: Decoding = this.decoding): Promise<string> {
    if (decoding === 'json') return pageStatement(this.schema, undefined)
    if (this.#plan === undefined) await this.describeAnew()
    return pageStatement(this.schema, this.#plan)
  }

  /** Describes all topics again. */
  async describeAnew(): Promise<void> {
    const topics = await describeTopics(this.#queryable, this.schema, this.selection?.ids)
    this.#take(new Map(topics.map((topic) => [topic.id, topic])))
  }

  /**
   * Learns the topics of a page. False: the page was read by other descriptions than it needs, and has to be read again.
   *
   * @param signatures by topic id, as the page gave them.
   */
  async agree(signatures: Readonly<Record<string, string>>): Promise<boolean> {
    const outdated = Object.entries(signatures).flatMap(([id, signature]) =>
      this.#topics?.get(id)?.signature === signature ? [] : [id],
    )
    if (outdated.length === 0) return true
    const topics = new Map(this.#topics)
    const described = await describeTopics(this.#queryable, this.schema, outdated)
    for (const topic of described) topics.set(topic.id, topic)
    this.#take(topics)
    // Texts are decoded here, by what is known now; events need no table.
    return this.decoding === 'json' || described.every((topic) => !topic.isCaptured)
  }

  decode(row: PageRow, position: string): Change {
    const topic = this.#topics?.get(row.topic)
    const operation = operationOf(row.operation)
    const images = this.#decodeImages(row, topic)
    const parse = this.decoding === 'json' ? parseExact : (text: string): unknown => JSON.parse(text)
    const change: Change = {
      position,
      id: row.id,
      xid: row.xid,
      messageId: messageIdOf(row.id, row.xid, row.created_at),
      topic: topic?.name ?? row.topic,
      key: operation === null ? row.key : images.key,
      type: row.type,
      table: operation === null ? null : (topic?.name ?? row.topic),
      operation,
      old: images.old,
      new: images.new,
      payload: row.payload === null ? null : parse(row.payload),
      headers: row.headers === null ? null : (parse(row.headers) as Record<string, unknown>),
      createdAt: row.created_at,
    }
    if (operation !== null && topic?.table !== undefined) rememberTable(change, topic.table)
    return change
  }

  #decodeImages(row: PageRow, topic: TopicDescription | undefined): Images {
    const typed = this.decoding === 'typed' ? this.#plan?.tables.get(row.topic) : undefined
    return typed === undefined ? textImages(row, topic) : typedImages(row, typed)
  }

  #take(topics: Map<string, TopicDescription>): void {
    this.#topics = topics
    if (this.decoding === 'typed') this.#plan = planTyped(this.schema, [...topics.values()])
  }
}

interface Images {
  readonly key: string | null
  readonly old: Record<string, unknown> | null
  readonly new: Record<string, unknown> | null
}

function textImages(row: PageRow, topic: TopicDescription | undefined): Images {
  const before = row.old === null ? null : decodeImage(row.old, topic?.table)
  const after = row.new === null ? null : decodeImage(row.new, topic?.table)
  const [image, text] = after === null ? [before, row.old] : [after, row.new]
  const key = image === null || text === null ? null : keyOf(image, text, topic?.table?.keyColumns ?? [])
  return { key, old: before, new: after }
}

function typedImages(row: PageRow, { table, columns }: TypedTable): Images {
  // Without images (truncate, resync) there is no key either.
  const keyText = row.has_old === true || row.has_new === true ? (row.key_image ?? null) : null
  return {
    key: keyText === null ? null : keyOf(decodeImage(keyText, table), keyText, table.keyColumns),
    old: row.has_old === true ? Object.fromEntries(columns.map((column) => [column.name, row[column.old]])) : null,
    new: row.has_new === true ? Object.fromEntries(columns.map((column) => [column.name, row[column.new]])) : null,
  }
}
