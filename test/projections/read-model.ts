import type { ProjectionHandlers, ProjectionOptions } from '../../src/index.ts'

export type Counted = { type: 'counted'; payload: { by: number } } | { type: 'noted'; payload: { text: string } }

/** A read model that says which events it has seen, in which order: nothing lost, doubled or turned round goes unseen. */
export const seenTables = (name: string): NonNullable<ProjectionOptions['tables']> => ({
  [name]: (table, plain) => `create table ${table} (
    position bigint primary key, place bigserial, stream text not null, version bigint not null, note text not null default ''
  ); create unique index ${plain}_version on ${table} (stream, version)`,
  [`${name}_sum`]: (table) =>
    `create table ${table} (stream text primary key, events int not null, sum bigint not null)`,
})

/** Writes what `seenTables` makes. `note`: what to write with each. */
export function seenHandlers(
  name: string,
  note: (isReplay: boolean) => string = () => '',
): ProjectionHandlers<Counted> {
  return {
    counted: async (event, { query, table, isReplay }) => {
      await query(`insert into ${table(name)} (position, stream, version, note) values ($1, $2, $3, $4)`, [
        event.position,
        event.stream,
        event.version,
        note(isReplay),
      ])
      await query(
        `insert into ${table(`${name}_sum`)} as t (stream, events, sum) values ($1, 1, $2)
         on conflict (stream) do update set events = t.events + 1, sum = t.sum + excluded.sum`,
        [event.stream, event.payload.by],
      )
    },
  }
}
