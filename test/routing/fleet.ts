import pg from 'pg'
import { expect } from 'vitest'
import { createTrunkline, type Decision, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import type { EmbeddedPostgresVersion } from '../../src/testing/embedded-postgres.ts'
import { recordingLogger, type RecordingLogger } from '../cache/cached.ts'
import {
  createDatabase,
  createStandby,
  eventually,
  type OwnCluster,
  ownCluster,
  type Standby,
  startTcpProxy,
  type TcpProxy,
  type TestDatabase,
} from '../support/index.ts'

/** A primary and its standbys, each behind a proxy that can cut, stall and count. */
export interface Fleet extends AsyncDisposable {
  readonly primary: OwnCluster
  readonly standbys: readonly Standby[]
  readonly database: TestDatabase
  readonly primaryProxy: TcpProxy
  readonly proxies: readonly TcpProxy[]
  /** Of the standbys, through their proxies. */
  readonly replicaUrls: readonly string[]
  /** Straight to a standby. */
  readonly directUrls: readonly string[]
  readonly caughtUp: () => Promise<void>
}

/** Starts a cluster with a database that has `item (id integer primary key, note text)`, and standbys that have it, too. */
export async function startFleet(
  version: EmbeddedPostgresVersion,
  standbyCount: number,
  settings: Readonly<Record<string, string>> = {},
): Promise<Fleet> {
  const primary = await ownCluster(version, settings)
  const standbys: Standby[] = []
  // One after the other: for each the primary is stopped and copied.
  for (let count = 0; count < standbyCount; count += 1) standbys.push(await createStandby(primary, settings))
  const database = await createDatabase(primary.server)
  await database.query('create table item (id integer primary key, note text)')
  const directUrls = standbys.map(({ postgres }) => withPort(database.url, postgres.port))
  const proxies = await Promise.all(directUrls.map((url) => startTcpProxy(url)))
  const primaryProxy = await startTcpProxy(database.url)
  const caughtUp = async (): Promise<void> => {
    for (const standby of standbys) await standby.untilCaughtUp()
  }
  await caughtUp()
  return {
    primary,
    standbys,
    database,
    primaryProxy,
    proxies,
    replicaUrls: proxies.map(({ url }) => url),
    directUrls,
    caughtUp,
    async [Symbol.asyncDispose]() {
      await Promise.all([primaryProxy, ...proxies].map((proxy) => proxy.stop()))
      await database.drop().catch(() => undefined)
      await Promise.all(standbys.map((standby) => standby.dispose()))
      await primary.dispose()
    },
  }
}

/** A Trunkline on a fleet, with what it decided and said. */
export interface Routed extends AsyncDisposable {
  readonly trunkline: Trunkline
  readonly decisions: Decision[]
  readonly logger: RecordingLogger
}

/** Without the change log: routing needs none. */
export async function route(fleet: Fleet, options: Partial<TrunklineOptions> = {}): Promise<Routed> {
  const logger = recordingLogger()
  const trunkline = createTrunkline({
    url: fleet.primaryProxy.url,
    replicaUrls: fleet.replicaUrls,
    logger,
    ...options,
    routing: { healthIntervalMs: 50, ...options.routing },
  })
  const decisions: Decision[] = []
  trunkline.routing.on('decision', (decision) => decisions.push(decision))
  await trunkline.routing.start()
  return { trunkline, decisions, logger, [Symbol.asyncDispose]: () => trunkline.stop() }
}

/** The standby gets nothing more from its primary, and goes on serving what it has. */
export async function disconnect(standby: Standby): Promise<void> {
  await setConninfo(standby, 'host=127.0.0.1 port=1')
}

/** The standby follows another one, which was promoted. */
export async function follow(standby: Standby, promoted: Standby): Promise<void> {
  const { hostname, port, username } = new URL(promoted.postgres.url)
  await setConninfo(standby, `host=${hostname} port=${port} user=${username}`)
}

async function setConninfo({ postgres }: Standby, conninfo: string): Promise<void> {
  await withClient(postgres.url, async (client) => {
    await client.query(`alter system set primary_conninfo = '${conninfo}'`)
  })
  // Before 13 it is read at start only.
  await postgres.restart('fast')
}

/** The port that a transaction's statement ran on. */
export async function portOf(tx: { query(text: string): Promise<{ rows: unknown[] }> }): Promise<number> {
  const { rows } = await tx.query('select inet_server_port() as port')
  return (rows[0] as { port: number }).port
}

/** Resolves when every replica serves. */
export async function untilServing(trunkline: Trunkline, count: number): Promise<void> {
  await eventually(
    () =>
      trunkline.routing.status().nodes.filter((node) => node.role === 'replica' && node.state === 'serving').length ===
      count,
    { what: `${count} replicas serve`, timeoutMs: 20_000 },
  )
}

export function stateOf(trunkline: Trunkline, name: string): string | undefined {
  return trunkline.routing.status().nodes.find((node) => node.name === name)?.state
}

export function nameOf(url: string): string {
  return new URL(url).host
}

export function withPort(url: string, port: number): string {
  const other = new URL(url)
  other.port = String(port)
  return other.href
}

/** The error that a call must end with. */
export async function errorOf(call: Promise<unknown>): Promise<Error & { code?: string; retryable?: boolean }> {
  try {
    await call
  } catch (error) {
    return error as Error & { code?: string }
  }
  return expect.fail('the call was expected to fail')
}

/** Counts what clients sent to a server in one go: a client waits for the answer before it sends more. */
export async function withClient<Result>(url: string, use: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
