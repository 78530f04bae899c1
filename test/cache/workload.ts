import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { copyIn, randomFrom } from '../log/reader-workload.ts'
import type { TestDatabase } from '../support/index.ts'

/** How a table of the workload is captured and how a new row of it gets its key. */
interface WorkloadTable {
  readonly create: string
  readonly capture: { readonly rows?: 'full' | 'keys'; readonly wake?: 'off' }
  /** SQL of a new row's key columns. */
  readonly newKey: string
  readonly keyColumns: string
}

/**
 * Amounts move between these tables: whatever commits leaves their sum as it was. `account`: one key. `purse`: two texts,
 * captured by key. `wallet`: no key. `vault`: partitioned.
 */
const tables = {
  account: {
    create: `create table account (id integer, balance bigint not null default 0, note text,
        constraint account_pkey primary key (id) deferrable)`,
    capture: {},
    newKey: '(random() * 1e9)::integer',
    keyColumns: 'id',
  },
  purse: {
    create: `create table purse (code text, balance bigint not null default 0, grp text, note text, primary key (grp, code))`,
    capture: { rows: 'keys' },
    newKey: "chr(65 + (random() * 5)::integer), 'c' || (random() * 1e9)::integer",
    keyColumns: 'grp, code',
  },
  wallet: {
    create: 'create table wallet (owner text, balance bigint not null default 0, note text)',
    capture: {},
    newKey: "'o' || (random() * 5)::integer",
    keyColumns: 'owner',
  },
  vault: {
    create: `create table vault (id integer primary key, balance bigint not null default 0, note text) partition by range (id);
      create table vault_1 partition of vault for values from (minvalue) to (300000000);
      create table vault_2 partition of vault for values from (300000000) to (600000000);
      create table vault_3 partition of vault for values from (600000000) to (maxvalue)`,
    capture: {},
    newKey: '(random() * 1e9)::integer',
    keyColumns: 'id',
  },
} as const satisfies Record<string, WorkloadTable>

/** The same for two tables whose writers use PREPARE TRANSACTION, which refuses after a NOTIFY. */
const preparedTables = { here: tables.account, there: tables.account } as const

export type WorkloadTableName = keyof typeof tables
export const summedTables = Object.keys(tables) as WorkloadTableName[]
export const preparedNames = Object.keys(preparedTables) as (keyof typeof preparedTables)[]

/** The sum of all balances of the summed tables, and of the prepared ones. */
export const total = 40_000n

export async function createWorkload(database: TestDatabase): Promise<void> {
  await database.adminQuery(`alter database ${database.name} set deadlock_timeout = '30ms'`)
  const all = [...Object.entries(tables), ...preparedNames.map((name) => [name, preparedTables[name]] as const)]
  for (const [name, { create, newKey, keyColumns, capture }] of all) {
    await database.query(create.replaceAll('account', name))
    const share = summedTables.includes(name as WorkloadTableName) ? total / 4n : total / 2n
    await database.query(
      `insert into ${name} (${keyColumns}, balance, note) select ${newKey}, ${share / 50n}, 'first' from generate_series(1, 50)`,
    )
    const { rows = 'full' } = capture as WorkloadTable['capture']
    const wake = preparedNames.includes(name as 'here') ? 'off' : null
    await database.query('select trunkline.capture($1, $2, wake => $3)', [name, rows, wake])
  }
}

export interface WorkloadOptions {
  readonly writers: number
  readonly transactions: number
  readonly seed: number
  /** Called after each transaction with how many there were. */
  readonly onProgress?: (done: number) => void
}

export interface WorkloadReport {
  committed: number
  rolledBack: number
  prepared: number
}

/** Writers that run random transactions at the same time, each on its own connection. */
export async function runWorkload(database: TestDatabase, options: WorkloadOptions): Promise<WorkloadReport> {
  const report = { committed: 0, rolledBack: 0, prepared: 0 }
  let started = 0
  let done = 0
  const writer = async (index: number): Promise<void> => {
    const client = await database.connect()
    await client.query("set lock_timeout = '500ms'; set plan_cache_mode = force_custom_plan")
    const random = randomFrom(options.seed + index)
    while (started < options.transactions) {
      started += 1
      report[await new Transaction(client, random).run(`${options.seed} ${index} ${started}`)] += 1
      done += 1
      options.onProgress?.(done)
    }
    await client.end()
  }
  await Promise.all(Array.from({ length: options.writers }, (_, index) => writer(index)))
  return report
}

class Transaction {
  readonly #client: pg.Client
  readonly #random: () => number

  constructor(client: pg.Client, random: () => number) {
    this.#client = client
    this.#random = random
  }

  async run(name: string): Promise<keyof WorkloadReport> {
    if (this.#chance(0.07)) return this.#runPrepared(name)
    const isRepeatable = this.#chance(0.15)
    try {
      await this.#client.query(`begin isolation level ${isRepeatable ? 'repeatable read' : 'read committed'}`)
      // Long before it writes: a lower xid than those of writers that commit first.
      if (this.#chance(0.3)) await this.#client.query('select txid_current()')
      if (this.#chance(0.3)) await delay(this.#random() * 15)
      const steps = 1 + this.#upTo(5)
      for (let step = 0; step < steps; step += 1) await this.#step(isRepeatable)
      const isKept = this.#chance(0.85)
      await this.#client.query(isKept ? 'commit' : 'rollback')
      return isKept ? 'committed' : 'rolledBack'
    } catch {
      // A deadlock, a serialization failure, a key that is taken: nothing of it may be seen.
      await this.#client.query('rollback')
      return 'rolledBack'
    }
  }

  async #runPrepared(name: string): Promise<keyof WorkloadReport> {
    try {
      await this.#client.query('begin')
      for (let step = 0; step < 2; step += 1) await this.#transfer(preparedNames)
      await this.#client.query(`prepare transaction '${name}'`)
    } catch {
      await this.#client.query('rollback')
      return 'rolledBack'
    }
    await delay(this.#random() * 40)
    const isKept = this.#chance(0.75)
    await this.#client.query(`${isKept ? 'commit' : 'rollback'} prepared '${name}'`)
    return isKept ? 'prepared' : 'rolledBack'
  }

  async #step(isRepeatable: boolean): Promise<void> {
    const dice = this.#random()
    if (dice < 0.55) await this.#transfer(summedTables)
    else if (dice < 0.65) await this.#inSavepoint()
    else if (dice < 0.75) await this.#changeKeys()
    else if (dice < 0.82) await this.#rewrite()
    else if (dice < 0.88) await this.#copy()
    else if (dice < 0.94) await this.#tidy()
    else if (dice < 0.955 && !isRepeatable) await this.#truncate()
    else await delay(this.#random() * 8)
  }

  async #inSavepoint(): Promise<void> {
    await this.#client.query('savepoint inner_part')
    try {
      await this.#transfer(summedTables)
      await this.#changeKeys()
      await this.#client.query(this.#chance(0.5) ? 'release inner_part' : 'rollback to inner_part')
    } catch (error) {
      if ((error as { code?: string }).code !== '23505') throw error
      await this.#client.query('rollback to inner_part')
    }
  }

  /** Takes from one table and gives to another. */
  async #transfer(names: readonly (WorkloadTableName | 'here' | 'there')[]): Promise<void> {
    const carried = await this.#take(this.#oneOf(names))
    const to = this.#oneOf(names)
    if (this.#chance(0.6)) {
      const { rowCount } = await this.#client.query(`update ${to} set balance = balance + $1 where ${aRow(to)}`, [
        carried,
      ])
      if (rowCount === 1) return
    }
    const { newKey, keyColumns } = tableOf(to)
    await this.#client.query(`insert into ${to} (${keyColumns}, balance, note) select ${newKey}, $1, 'given'`, [
      carried,
    ])
  }

  async #take(from: WorkloadTableName | 'here' | 'there'): Promise<bigint> {
    if (this.#chance(0.4)) {
      const { rows } = await this.#client.query<{ balance: string }>(
        `delete from ${from} where ${aRow(from)} returning balance`,
      )
      return BigInt(rows[0]?.balance ?? 0)
    }
    const amount = BigInt(this.#upTo(100))
    const { rowCount } = await this.#client.query(
      `update ${from} set balance = balance - $1, note = $2 where ${aRow(from)}`,
      [amount, `taken ${amount}`],
    )
    return rowCount === 1 ? amount : 0n
  }

  async #changeKeys(): Promise<void> {
    const name = this.#oneOf(summedTables)
    if (name === 'account' && this.#chance(0.5)) {
      // Two rows change places in one statement.
      await this.#client
        .query(`with two as (select min(id) as a, max(id) as b from (select id from account order by random() limit 2) as some)
        update account set id = two.a + two.b - id from two where id in (two.a, two.b)`)
      return
    }
    const { newKey, keyColumns } = tableOf(name)
    await this.#client.query(`update ${name} set (${keyColumns}) = row(${newKey}) where ${aRow(name)}`)
  }

  /** Many rows, of which some do not change. */
  async #rewrite(): Promise<void> {
    const name = this.#oneOf(summedTables)
    await this.#client.query(
      `update ${name} set note = case when random() < 0.5 then note else 'rewritten' end where random() < 0.3`,
    )
  }

  async #copy(): Promise<void> {
    const count = this.#chance(0.05) ? 3_000 : 1 + this.#upTo(30)
    const from = this.#upTo(2 ** 30)
    if (this.#chance(0.5)) {
      const lines = Array.from({ length: count }, (_, index) => `${from + index}\t0\tcopied\n`)
      await copyIn(this.#client, 'copy account (id, balance, note) from stdin', lines.join(''))
      return
    }
    const name = this.#oneOf(summedTables)
    const { newKey, keyColumns } = tableOf(name)
    await this.#client.query(
      `insert into ${name} (${keyColumns}, note) select ${newKey}, 'many' from generate_series(1, ${count}) on conflict do nothing`,
    )
  }

  /** What holds nothing goes. */
  async #tidy(): Promise<void> {
    await this.#client.query(`delete from ${this.#oneOf(summedTables)} where balance = 0`)
  }

  /** Emptied, and what was in it comes back in one row. */
  async #truncate(): Promise<void> {
    const name = this.#oneOf(summedTables)
    await this.#client.query(`lock table ${name} in access exclusive mode`)
    const { rows } = await this.#client.query<{ sum: string }>(
      `select coalesce(sum(balance), 0)::text as sum from ${name}`,
    )
    await this.#client.query(`truncate ${name}`)
    const { newKey, keyColumns } = tableOf(name)
    await this.#client.query(
      `insert into ${name} (${keyColumns}, balance, note) select ${newKey}, case n when 1 then $1::bigint else 0 end, 'kept'
        from generate_series(1, 10) as n`,
      [rows[0]?.sum],
    )
  }

  #oneOf<Value>(values: readonly Value[]): Value {
    return values[this.#upTo(values.length)] as Value
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  #upTo(max: number): number {
    return Math.floor(this.#random() * max)
  }
}

function tableOf(name: WorkloadTableName | 'here' | 'there'): WorkloadTable {
  return name === 'here' || name === 'there' ? preparedTables[name] : tables[name]
}

/** A condition that holds for one row, or for none if somebody else is quicker. */
function aRow(name: string): string {
  if (name === 'wallet') return 'ctid = (select ctid from wallet order by random() limit 1)'
  if (name === 'purse') return '(grp, code) = (select grp, code from purse order by random() limit 1)'
  return `id = (select id from ${name} order by random() limit 1)`
}
