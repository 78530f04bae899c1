import { type PoolClient } from 'pg'
import { pause } from '../../core/index.ts'
import { codeGroups } from './reference-data.ts'

/** One kind of transaction. */
export interface Job {
  readonly what: string
  readonly size: 'small' | 'bulk'
  /** `rollback`: nobody may ever see anything of it. */
  readonly end: 'commit' | 'rollback'
  /** Writes, and returns how many rows carry the revision now. */
  readonly work: (tx: Transaction) => Promise<number>
}

/** What a job writes with. */
export interface Transaction {
  readonly client: PoolClient
  readonly revision: number
  /** Rows of `place`, whose keys run from 1 to it. */
  readonly places: number
}

/** Rows of one bulk update. */
const bulkRows = 5_000
/** How long an open transaction with written rows waits before its COMMIT, in milliseconds. */
const heldOpenMs = 30

async function update(tx: Transaction, sql: string, values: readonly unknown[] = []): Promise<number> {
  const { rowCount } = await tx.client.query(sql, [tx.revision, ...values])
  return rowCount ?? 0
}

const renameCodes: Job = {
  what: '3 currencies renamed',
  size: 'small',
  end: 'commit',
  work: (tx) =>
    update(
      tx,
      `update common_code as c
       set name = regexp_replace(c.name, ' \\[.*', '') || ' [' || $1::integer || ']', revision = $1, updated_at = now()
       where c.group_cd = 'CURRENCY'
         and c.code in (select code from common_code where group_cd = 'CURRENCY' order by md5(code || $1::integer) limit 3)`,
    ),
}

/** Two tables in one transaction: an instance must show both at once. */
const renameCountryAndPlace: Job = {
  what: 'a country and its places, in one transaction',
  size: 'small',
  end: 'commit',
  work: async (tx) => {
    const { rows } = await tx.client.query<{ code: string }>(
      `update common_code
       set attributes = attributes || jsonb_build_object('reviewed', $1::integer), revision = $1, updated_at = now()
       where group_cd = 'COUNTRY'
         and code = (select code from common_code where group_cd = 'COUNTRY' order by md5(code || $1::integer) limit 1)
       returning code`,
      [tx.revision],
    )
    const places = `select id from place where country_cd = $2 order by id limit 5`
    return 1 + (await update(tx, `update place set revision = $1 where id in (${places})`, [rows[0]?.code]))
  },
}

const renamePlace: Job = {
  what: 'a place renamed',
  size: 'small',
  end: 'commit',
  work: (tx) =>
    update(
      tx,
      `update place set name = regexp_replace(name, ' \\[.*', '') || ' [' || $1::integer || ']', revision = $1 where id = $2`,
      [1 + ((tx.revision * 7919) % tx.places)],
    ),
}

const addCode: Job = {
  what: 'a code added, the oldest of its kind withdrawn',
  size: 'small',
  end: 'commit',
  work: async (tx) => {
    const added = await update(
      tx,
      `insert into common_code (group_cd, code, name, revision)
       values ('DEMO', to_char($1::integer, 'FM000000'), 'Code of transaction ' || $1::integer, $1)`,
    )
    await tx.client.query(
      `delete from common_code
       where group_cd = 'DEMO' and code = (select min(code) from common_code where group_cd = 'DEMO' having count(*) > 20)`,
    )
    return added
  },
}

const heldOpen: Job = {
  what: `a currency renamed, ${heldOpenMs} ms before the commit`,
  size: 'small',
  end: 'commit',
  work: async (tx) => {
    const rows = await renameCodes.work(tx)
    await pause(heldOpenMs)
    return rows
  },
}

/** A code has another name for a moment inside of the transaction; the rows of the savepoint never existed. */
const savepoint: Job = {
  what: 'a code added, another one rolled back to a savepoint',
  size: 'small',
  end: 'commit',
  work: async (tx) => {
    const { client } = tx
    await client.query('savepoint before')
    await update(tx, `update place set revision = $1 where id <= 50`)
    await update(tx, `update common_code set revision = $1 where group_cd = 'REGION'`)
    await client.query('rollback to savepoint before')
    return addCode.work(tx)
  },
}

const rolledBack: Job = {
  what: 'all countries renamed and rolled back',
  size: 'small',
  end: 'rollback',
  work: async (tx) => {
    const codes = await update(
      tx,
      `update common_code set name = 'must never be seen', revision = $1 where group_cd = 'COUNTRY'`,
    )
    const places = await update(tx, `update place set name = 'must never be seen', revision = $1 where id <= 200`)
    await tx.client.query('truncate common_code_group')
    return codes + places
  },
}

const refillGroups: Job = {
  what: 'the groups truncated and filled again',
  size: 'small',
  end: 'commit',
  work: async (tx) => {
    await tx.client.query('truncate common_code_group')
    return update(
      tx,
      `insert into common_code_group (group_cd, name, sort_order, revision)
       select g.group_cd, g.name, g.sort_order, $1
       from unnest($2::text[], $3::text[]) with ordinality as g (group_cd, name, sort_order)`,
      [codeGroups.map(({ group }) => group), codeGroups.map(({ name }) => name)],
    )
  },
}

const bulkUpdate: Job = {
  what: `${bulkRows.toLocaleString('en')} places updated`,
  size: 'bulk',
  end: 'commit',
  work: (tx) => {
    const from = (tx.revision * 7919) % Math.max(1, tx.places - bulkRows)
    return update(tx, 'update place set longitude = longitude, revision = $1 where id > $2 and id <= $3', [
      from,
      from + bulkRows,
    ])
  },
}

const smallJobs = [renameCodes, renamePlace, renameCountryAndPlace, addCode, heldOpen, refillGroups, savepoint]

/** The job for the n-th turn: all kinds of small ones in turn, with a rollback and a bulk update among them. */
export function jobOfTurn(turn: number): Job {
  if (turn % 10 === 5) return rolledBack
  if (turn % 40 === 39) return bulkUpdate
  return smallJobs[turn % smallJobs.length] ?? renamePlace
}

/** What is written during a fault. The last one writes a row of its own, so that nothing later can hide it. */
export const faultJobs: readonly Job[] = [
  renameCodes,
  rolledBack,
  renameCountryAndPlace,
  refillGroups,
  renamePlace,
  addCode,
]
