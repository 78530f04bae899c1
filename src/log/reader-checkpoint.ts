import { formatSnapshot, type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { parsePosition } from './position.ts'

/** The position that a durable reader saved last; undefined: it never did. */
export async function loadCheckpoint(queryable: Queryable, schema: string, name: string): Promise<string | undefined> {
  const { rows } = await queryable.query<{ position: string }>(
    `select r.position from ${quoteIdentifier(schema)}.reader as r where r.name = $1`,
    [name],
  )
  return rows[0]?.position
}

/**
 * Saves how far a durable reader is. Rotation keeps what it has not read, for as long as it saves at least once in
 * `installation.hold`: save now and then also when nothing came.
 */
export async function saveCheckpoint(
  queryable: Queryable,
  schema: string,
  name: string,
  position: string,
): Promise<void> {
  await queryable.query(
    `insert into ${quoteIdentifier(schema)}.reader as r (name, position, snapshot) values ($1, $2, $3::text::txid_snapshot)
     on conflict on constraint reader_pkey do update set position = excluded.position, snapshot = excluded.snapshot, updated_at = now()`,
    [name, position, formatSnapshot(parsePosition(position).from)],
  )
}

/** Forgets a durable reader: rotation waits for it no longer. */
export async function removeCheckpoint(queryable: Queryable, schema: string, name: string): Promise<void> {
  await queryable.query(`delete from ${quoteIdentifier(schema)}.reader as r where r.name = $1`, [name])
}
