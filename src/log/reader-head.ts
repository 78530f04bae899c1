import { parseSnapshot, type Queryable, quoteIdentifier, type Snapshot } from '../postgres/index.ts'

/** Which log this is, and what is visible in it at present. */
export interface LogHead {
  readonly identity: string
  readonly snapshot: Snapshot
}

export async function readHead(queryable: Queryable, schema: string): Promise<LogHead> {
  const { rows } = await queryable.query<{ identity: string; snapshot: string }>(
    `select ${quoteIdentifier(schema)}.log_identity() as identity, txid_current_snapshot()::text as snapshot`,
  )
  const [row] = rows
  if (row === undefined) throw new Error('log_identity() gave no row.')
  return { identity: row.identity, snapshot: parseSnapshot(row.snapshot) }
}
