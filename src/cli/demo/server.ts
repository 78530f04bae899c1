import pg from 'pg'
import {
  type EmbeddedPostgres,
  EmbeddedPostgresError,
  type EmbeddedPostgresVersion,
  startEmbeddedPostgres,
} from '../../testing/index.ts'
import { elapsedMs, nowMs } from './clock.ts'

/** The owner of the demo's database, who is no superuser. */
const owner = 'demo_owner'
const database = 'demo'
/** Tried in this order: the oldest version that trunkline supports, else the newest. */
const versions = ['12', '18'] as const

/** A PostgreSQL server of the demo's own, with an empty database. */
export interface DemoServer {
  readonly postgres: EmbeddedPostgres
  /** As the server names itself, for example 12.22. */
  readonly serverVersion: string
  readonly startMs: number
  /** Why it is not the version asked for. */
  readonly note: string | undefined
  /** The database, as its owner. Changes when a restart had to move to another port. */
  url(): string
}

/** @param version the one to take; default 12, or 18 where npm has no 12 for this platform. */
export async function startServer(version?: EmbeddedPostgresVersion): Promise<DemoServer> {
  const started = nowMs()
  const { postgres, note } = await startFirst(version === undefined ? versions : [version])
  try {
    const serverVersion = await makeDatabase(postgres)
    const url = (): string => postgres.urlFor({ user: owner, database })
    return { postgres, serverVersion, startMs: elapsedMs(started), note, url }
  } catch (error) {
    await postgres.dispose()
    throw error
  }
}

async function startFirst(
  candidates: readonly EmbeddedPostgresVersion[],
): Promise<{ postgres: EmbeddedPostgres; note: string | undefined }> {
  let first: EmbeddedPostgresError | undefined
  for (const version of candidates) {
    try {
      const postgres = await startEmbeddedPostgres({ version })
      const note = first && `There are no binaries of PostgreSQL ${candidates[0]} here, so this is ${version}.`
      return { postgres, note }
    } catch (error) {
      if (!(error instanceof EmbeddedPostgresError) || error.code !== 'embedded_postgres_not_installed') throw error
      first ??= error
    }
  }
  throw first ?? new Error('No version of PostgreSQL was given.')
}

async function makeDatabase(postgres: EmbeddedPostgres): Promise<string> {
  const superuser = new pg.Client({ connectionString: postgres.url })
  await superuser.connect()
  try {
    await superuser.query(`create role ${owner} login`)
    await superuser.query(`create database ${database} owner ${owner}`)
    const { rows } = await superuser.query<{ server_version: string }>('show server_version')
    return rows[0]?.server_version ?? ''
  } finally {
    await superuser.end()
  }
}
