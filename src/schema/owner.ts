import type { PoolClient } from 'pg'
import { InvalidInputError, messageOf } from '../core/index.ts'
import { quoteIdentifier, sqlStateOf } from '../postgres/index.ts'

interface Ownership {
  readonly role: string
  /** Of the schema's bookkeeping, else of the schema; null: there is neither. */
  readonly owner: string | null
  readonly isInstalled: boolean
  /** The role has the owner's rights: it is the owner, a member of it, or a superuser. */
  readonly mayAct: boolean
}

async function readOwnership(client: PoolClient, schema: string): Promise<Ownership | undefined> {
  const { rows } = await client.query<Ownership>(
    `select current_user::text as role, pg_catalog.pg_get_userbyid(o.id)::text as owner, o.is_installed as "isInstalled",
      coalesce(pg_catalog.pg_has_role(o.id, 'USAGE'), false) as "mayAct"
    from (select) as one
    left join lateral (
      select coalesce(c.relowner, n.nspowner) as id, c.oid is not null as is_installed from pg_catalog.pg_namespace as n
      left join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = 'migration'
      where n.nspname = $1
    ) as o on true`,
    [schema],
  )
  return rows[0]
}

/**
 * Until the end of the transaction, what is made belongs to whom the rest belongs to, whoever migrates: trigger functions run as
 * their owner and reach the tables of one owner only.
 */
export async function actAsOwner(client: PoolClient, schema: string): Promise<void> {
  const ownership = await readOwnership(client, schema)
  if (ownership?.isInstalled !== true || ownership.owner === ownership.role) return
  if (ownership.mayAct) await client.query(`set local role ${quoteIdentifier(ownership.owner ?? '')}`)
  else throw refused(schema, ownership, 'it owns nothing of it')
}

/** A missing right as who may, and what to do; anything else as it is. */
export async function asRefusal(client: PoolClient, schema: string, failure: unknown): Promise<unknown> {
  if (sqlStateOf(failure) !== '42501') return failure
  const ownership = await readOwnership(client, schema).catch(() => undefined)
  return ownership === undefined ? failure : refused(schema, ownership, messageOf(failure), failure)
}

function refused(
  schema: string,
  { role, owner, isInstalled }: Ownership,
  why: string,
  cause?: unknown,
): InvalidInputError {
  const [name, whose] = [quoteIdentifier(schema), owner ?? '']
  const hint = isInstalled
    ? `It belongs to "${whose}": migrate as that role, or as a member of it.`
    : owner === null
      ? `Have the database's owner run: create schema ${name} authorization ${quoteIdentifier(role)}`
      : `The schema belongs to "${whose}": migrate as that role, or have it run: grant usage, create on schema ${name} to ${quoteIdentifier(role)}`
  return new InvalidInputError(`Role "${role}" may not migrate schema "${schema}": ${why}.`, {
    code: 'no_privilege',
    hint,
    details: { schema, role, owner },
    cause,
  })
}
