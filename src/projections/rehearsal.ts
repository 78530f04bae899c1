import type { RecordedEvent } from '../events/index.ts'
import type { Queryable } from '../postgres/index.ts'
import type { ProjectedEvent } from './handler.ts'
import { Handling } from './handling.ts'
import { definitionOf, type ProjectionOptions } from './projection-options.ts'
import { builtAs } from './table-name.ts'
import { makeBuiltTables, tableNameOf } from './tables.ts'

/** Names of the tables of a rehearsal end with it. */
const rehearsal = { build: 'rehearsal', state: 'building' } as const

/**
 * Runs the handlers of a projection on events, in tables made for it, and gives their rows by the names they were declared with. For
 * tests: in a transaction that is rolled back afterwards. Needs no schema of trunkline.
 *
 * @throws ProjectionError; InvalidInputError `invalid_option`.
 */
export async function rehearse<Event extends ProjectedEvent>(
  db: Queryable,
  options: ProjectionOptions<Event>,
  events: readonly RecordedEvent[],
): Promise<Record<string, Record<string, unknown>[]>> {
  const definition = definitionOf(options)
  await makeBuiltTables(db, definition, rehearsal.build)
  const handling = new Handling(db, {
    definition,
    nameOf: tableNameOf(rehearsal),
    replayUntil: 0n,
    timeoutMs: definition.handlerTimeoutMs,
    signal: new AbortController().signal,
  })
  for (const event of events) await handling.handle({ stored: event, events: [event] })
  handling.end()
  const rows: Record<string, Record<string, unknown>[]> = {}
  for (const { table } of definition.tables ?? []) {
    rows[table.given] = (await db.query(`select * from ${builtAs(table, rehearsal.build)}`)).rows
  }
  return rows
}
