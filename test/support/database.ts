import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { eventually } from './eventually.ts'
import { OWNER_ROLE, type TestServer, USER_ROLE } from './server.ts'

/** Whom a connection belongs to: the database's owner (no superuser), a superuser, or a role without any right. */
export type TestRole = 'owner' | 'admin' | 'user'

/** A database of its own; gone after `drop()`. */
export interface TestDatabase extends AsyncDisposable {
  readonly name: string
  readonly server: TestServer
  /** As the owner `app_owner`, who is no superuser. */
  readonly url: string
  /** As the superuser. */
  readonly adminUrl: string
  /** As `app_user`, who has no right but CONNECT and what PUBLIC has. */
  readonly userUrl: string
  /** Runs one statement on a pool of the owner's and returns its rows. */
  query<Row extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<Row[]>
  /** The same as a superuser. */
  adminQuery<Row extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<Row[]>
  /** A connection of its own, default the owner's; `drop()` closes it if it is still open. */
  connect(role?: TestRole): Promise<pg.Client>
  /** Ends all connections, rolls back prepared transactions, removes the database. Twice is harmless. */
  drop(): Promise<void>
}

export interface TestDatabaseOptions {
  /** What the new database is a copy of. Default `template0`, an empty one. */
  readonly template?: string
}

const POOL_SIZE_MAX = 4

/** Makes a database on a server, owned by `app_owner`. */
export async function createDatabase(server: TestServer, options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`
  await onServer(server, (client) =>
    client.query(`create database ${name} template ${options.template ?? 'template0'} owner ${OWNER_ROLE}`),
  )
  return new Database(server, name)
}

/**
 * Makes a database before the tests of the surrounding suite and drops it after them. The result is read inside tests
 * and hooks: `const database = useDatabase(server)`, then `database().url`.
 */
export function useDatabase(server: TestServer, options?: TestDatabaseOptions): () => TestDatabase {
  let database: TestDatabase | undefined
  beforeAll(async () => {
    database = await createDatabase(server, options)
  })
  afterAll(async () => database?.drop())
  return () => {
    if (database === undefined) throw new Error('The test database exists only inside of tests and hooks.')
    return database
  }
}

/**
 * Makes a template once per server, whichever worker comes first, to copy databases from with `{ template: name }`.
 *
 * @param prepare fills it; its connections are closed afterwards.
 */
export async function ensureTemplate(
  server: TestServer,
  name: string,
  prepare: (database: TestDatabase) => Promise<void>,
): Promise<void> {
  await onServer(server, async (client) => {
    await client.query('select pg_advisory_lock(hashtext($1))', [name])
    const { rowCount } = await client.query('select from pg_database where datname = $1', [name])
    if (rowCount !== 0) return
    const draft = new Database(server, (await createDatabase(server)).name)
    await prepare(draft)
    await draft.disconnect()
    await client.query(`alter database ${draft.name} rename to ${name}`)
  })
}

class Database implements TestDatabase {
  readonly name: string
  readonly server: TestServer
  readonly #clients = new Set<pg.Client>()
  readonly #pools = new Map<TestRole, pg.Pool>()

  constructor(server: TestServer, name: string) {
    this.server = server
    this.name = name
  }

  get url(): string {
    return this.#urlAs('owner')
  }

  get adminUrl(): string {
    return this.#urlAs('admin')
  }

  get userUrl(): string {
    return this.#urlAs('user')
  }

  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#pool('owner').query<Row>(text, [...values])
    return rows
  }

  async adminQuery<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#pool('admin').query<Row>(text, [...values])
    return rows
  }

  async connect(role: TestRole = 'owner'): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#urlAs(role) })
    client.on('error', ignoreLostConnection)
    await client.connect()
    this.#clients.add(client)
    return client
  }

  async disconnect(): Promise<void> {
    const pools = [...this.#pools.values()]
    this.#pools.clear()
    const clients = [...this.#clients]
    this.#clients.clear()
    await this.#terminateBackends()
    await Promise.allSettled([...pools.map((pool) => pool.end()), ...clients.map((client) => client.end())])
  }

  async drop(): Promise<void> {
    await this.#rollbackPrepared()
    await this.disconnect()
    await onServer(this.server, async (client) => {
      await eventually(() => this.#tryDrop(client), { what: `database ${this.name} is dropped` })
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drop()
  }

  #urlAs(role: TestRole): string {
    const url = new URL(this.server.url)
    url.pathname = `/${this.name}`
    if (role === 'admin') return url.href
    url.username = role === 'owner' ? OWNER_ROLE : USER_ROLE
    url.password = url.username
    return url.href
  }

  #pool(role: TestRole): pg.Pool {
    const existing = this.#pools.get(role)
    if (existing !== undefined) return existing
    const pool = new pg.Pool({ connectionString: this.#urlAs(role), max: POOL_SIZE_MAX, allowExitOnIdle: true })
    pool.on('error', ignoreLostConnection)
    this.#pools.set(role, pool)
    return pool
  }

  /** Waits for the end of the backends: a client that a test left behind reconnects, and is ended again. */
  async #tryDrop(client: pg.Client): Promise<boolean> {
    await this.#terminateBackends(client)
    await client.query(`drop database if exists ${this.name}`)
    return true
  }

  async #terminateBackends(client?: pg.Client): Promise<void> {
    const terminate = (connection: pg.Client): Promise<unknown> =>
      connection.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [this.name])
    await (client === undefined ? onServer(this.server, terminate) : terminate(client))
  }

  /** A prepared transaction keeps its database alive, and only a session in that database can end it. */
  async #rollbackPrepared(): Promise<void> {
    const prepared = await onServer(this.server, (client) =>
      client.query<{ gid: string }>('select gid from pg_prepared_xacts where database = $1', [this.name]),
    )
    for (const { gid } of prepared.rows) await this.adminQuery(`rollback prepared '${gid.replaceAll("'", "''")}'`)
  }
}

/** Tests end backends on purpose; the statement that was under way fails by itself. */
function ignoreLostConnection(): void {}

async function onServer<Result>(server: TestServer, action: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: server.url })
  client.on('error', ignoreLostConnection)
  await client.connect()
  try {
    return await action(client)
  } finally {
    await client.end()
  }
}
