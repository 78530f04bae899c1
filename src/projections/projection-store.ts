import { hostname } from 'node:os'
import type pg from 'pg'
import { InvalidInputError, messageOf, TrunklineError } from '../core/index.ts'
import { eventsOf, type RecordedEvent, type StreamParts } from '../events/index.ts'
import { type Queryable, quoteIdentifier, sqlStateOf, toTrunklineError } from '../postgres/index.ts'

/** A set of tables made by one version of the handlers. */
export interface Build {
  readonly build: string
  readonly version: number
  readonly mode: 'inline' | 'async'
  readonly state: 'building' | 'live'
  readonly partitions: number
  readonly tables: readonly string[]
  readonly builtAs: readonly string[]
  readonly replayUntil: string
  /** Processes that work on it. */
  readonly members: number
}

/** A partition as its owner has it. */
export interface TakenPartition {
  readonly partition: number
  readonly epoch: string
  readonly position: string
}

export interface Beat {
  readonly alive: boolean
  readonly state: 'building' | 'live' | null
  readonly share: number
  readonly owned: readonly number[]
  readonly vacant: number
  readonly requested: readonly number[]
}

/** One who works on a build. */
export interface Member {
  readonly projection: string
  readonly build: string
  readonly owner: string
}

/** Which partition he has. */
export interface Holding extends Member {
  readonly partition: number
  readonly epoch: string
}

/** An event to be parked; without `attempts` it waits behind another. */
export interface NewParked {
  readonly event: RecordedEvent
  readonly attempts?: number
  readonly code?: string
  readonly error?: string
  readonly firstAt?: Date
}

export interface ParkedRow {
  readonly id: string
  readonly position: string
  readonly request: 'retry' | 'discard' | null
}

/** The statements of projections. Each runs alone, or in the transaction it is given. */
export class ProjectionStore {
  readonly schema: string
  readonly #db: Queryable
  readonly #beatDb: Queryable
  readonly #place: string

  /** `beat`: for what renews the lease, which must not wait behind anything. */
  constructor(db: Queryable, beat: Queryable, schema: string) {
    this.#db = db
    this.#beatDb = beat
    this.schema = schema
    this.#place = quoteIdentifier(schema)
  }

  /** What there is of a projection; locked with `isLocked`, the live one first. */
  async builds(projection: string, db: Queryable = this.#db, isLocked = false): Promise<Build[]> {
    const { rows } = await db.query<Build & pg.QueryResultRow>(
      `select b.build::text, b.version, b.mode, b.state, b.partitions, b.tables, b.built_as as "builtAs", b.replay_until::text as "replayUntil",
         (select count(*)::integer from ${this.#place}.projection_member as m
           where m.projection = b.projection and m.build = b.build and m.expires_at > clock_timestamp()) as members
       from ${this.#place}.projection_build as b where b.projection = $1
       order by b.state desc ${isLocked ? 'for update' : ''}`,
      [projection],
    )
    return rows
  }

  /** How far the live build is; undefined: there is none. */
  async livePosition(
    db: Queryable,
    projection: string,
  ): Promise<{ mode: Build['mode']; position: string } | undefined> {
    const { rows } = await db.query<{ mode: Build['mode']; position: string }>(
      `select b.mode, (select min(p.position)::text from ${this.#place}.projection_partition as p
         where p.projection = b.projection and p.build = b.build) as position
       from ${this.#place}.projection_build as b where b.projection = $1 and b.state = 'live'`,
      [projection],
    )
    return rows[0]
  }

  /** How far a build is behind the live one; undefined: that is not async, or of another history, or there is none. */
  async positionsBehindLive(projection: string, build: string): Promise<bigint | undefined> {
    const { rows } = await this.#db.query<{ behind: string | null }>(
      `select (max(l.position) - (select min(p.position) from ${this.#place}.projection_partition as p
         where p.projection = $1 and p.build = $2))::text as behind
       from ${this.#place}.projection_build as b
       join ${this.#place}.projection_partition as l on l.projection = b.projection and l.build = b.build
       where b.projection = $1 and b.state = 'live' and b.mode = 'async'
         and ${this.#place}.is_projection_anchored(l.position, l.anchor_position, l.anchor_id)`,
      [projection, build],
    )
    const behind = rows[0]?.behind
    return behind === null || behind === undefined ? undefined : BigInt(behind)
  }

  /** The row that whoever begins or drops a build holds. */
  async lockProjection(db: Queryable, projection: string): Promise<void> {
    await db.query(`insert into ${this.#place}.projection (name) values ($1) on conflict (name) do nothing`, [
      projection,
    ])
    await db.query(`select from ${this.#place}.projection as p where p.name = $1 for update`, [projection])
  }

  async beginBuild(
    db: Queryable,
    projection: string,
    build: Pick<Build, 'version' | 'mode' | 'state' | 'partitions'> & {
      readonly categories: readonly string[] | undefined
    },
  ): Promise<string> {
    return this.#value(db, 'projection_begin_build($1, $2, $3, $4, $5, $6)::text', [
      projection,
      build.version,
      build.mode,
      build.state,
      build.partitions,
      build.categories ?? null,
    ])
  }

  async nameTables(
    db: Queryable,
    projection: string,
    build: string,
    tables: Pick<Build, 'tables' | 'builtAs'>,
  ): Promise<void> {
    await db.query(
      `update ${this.#place}.projection_build as b set tables = $3, built_as = $4 where b.projection = $1 and b.build = $2`,
      [projection, build, tables.tables, tables.builtAs],
    )
  }

  async dropBuild(db: Queryable, projection: string, build: string): Promise<void> {
    await db.query(`delete from ${this.#place}.projection_build as b where b.projection = $1 and b.build = $2`, [
      projection,
      build,
    ])
  }

  /** False: there is no such build any more. */
  async join({ projection, build, owner }: Member, leaseMs: number, db: Queryable = this.#db): Promise<boolean> {
    const name = `${hostname()}:${process.pid}`
    return this.#value(db, 'projection_join($1, $2, $3, $4, $5)', [projection, build, owner, name, leaseMs])
  }

  async beat({ projection, build, owner }: Member, leaseMs: number): Promise<Beat> {
    const { rows } = await this.#beatDb.query<Beat & pg.QueryResultRow>(
      `select b.alive, b.state, b.share, b.owned, b.vacant, b.requested from ${this.#place}.projection_beat($1, $2, $3, $4) as b`,
      [projection, build, owner, leaseMs],
    )
    return rows[0] as Beat
  }

  async take({ projection, build, owner }: Member, count: number): Promise<TakenPartition[]> {
    const { rows } = await this.#db.query<TakenPartition & pg.QueryResultRow>(
      `select t.partition, t.epoch::text, t.position::text from ${this.#place}.projection_take($1, $2, $3, $4) as t`,
      [projection, build, owner, count],
    )
    return rows
  }

  async giveBack({ projection, build, owner }: Member, partitions: readonly number[], leaves: boolean): Promise<void> {
    await this.#value(this.#db, 'projection_give_back($1, $2, $3, $4, $5)', [
      projection,
      build,
      owner,
      partitions,
      leaves,
    ])
  }

  /** Its position; undefined: it is somebody else's. */
  async positionOf(holding: Holding): Promise<bigint | undefined> {
    const { rows } = await this.#db.query<{ position: string }>(
      `select p.position::text from ${this.#place}.projection_partition as p
       where p.projection = $1 and p.build = $2 and p.partition = $3 and p.owner = $4 and p.epoch = $5`,
      values(holding),
    )
    return rows[0] === undefined ? undefined : BigInt(rows[0].position)
  }

  /** False: it is somebody else's. */
  async begin(db: Queryable, holding: Holding, timeoutMs: number): Promise<boolean> {
    return this.#value(db, 'projection_begin($1, $2, $3, $4, $5, $6)', [...values(holding), timeoutMs])
  }

  async save(
    db: Queryable,
    holding: Holding,
    from: bigint,
    to: bigint,
  ): Promise<'saved' | 'lost' | 'other_history' | 'ended'> {
    return this.#value(db, 'projection_save($1, $2, $3, $4, $5, $6, $7)', [
      ...values(holding),
      from.toString(),
      to.toString(),
    ])
  }

  /** A checkpoint that moves over events that are not wanted. */
  async move(holding: Holding, from: bigint, to: bigint): Promise<'saved' | 'lost' | 'other_history' | 'ended'> {
    return this.#value(
      this.#db,
      `projection_save($1, $2, $3, $4::text::uuid, $5, $6, $7)`,
      [...values(holding), from.toString(), to.toString()],
      `select set_config('trunkline.batch', $4::text, true)`,
    )
  }

  /** Attempts so far; undefined: it is somebody else's. */
  async failed(
    holding: Holding,
    failure: {
      readonly position: string | null
      readonly stream: string | null
      readonly code: string
      readonly error: string
      readonly counts: boolean
    },
  ): Promise<number | undefined> {
    const { position, stream, code, error, counts } = failure
    const attempts = await this.#value<string | null>(
      this.#db,
      'projection_failed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)',
      [...values(holding), position, stream, code, error, counts],
    )
    return attempts === null ? undefined : Number(attempts)
  }

  async park(
    db: Queryable,
    { projection, build, partition }: Omit<Holding, 'owner' | 'epoch'>,
    parked: readonly NewParked[],
  ): Promise<void> {
    const events = parked.map(({ event, attempts, code, error, firstAt }) => ({
      type: event.aggregateType,
      id: event.aggregateId,
      position: event.position,
      event_id: event.id,
      version: event.version,
      event_type: event.type,
      attempts,
      code,
      error,
      first_at: firstAt,
    }))
    await this.#value(db, 'projection_park($1, $2, $3, $4)', [projection, build, partition, JSON.stringify(events)])
  }

  /** Names of streams with parked events; of one partition, or of all of a build. */
  async parkedStreams(
    { projection, build }: Pick<Member, 'projection' | 'build'>,
    partition: number | null,
    db: Queryable = this.#db,
  ): Promise<Set<string>> {
    const { rows } = await db.query<{ stream: string }>(
      `select distinct case when e.aggregate_id = '' then e.aggregate_type else e.aggregate_type || '-' || e.aggregate_id end as stream
       from ${this.#place}.parked_event as e where e.projection = $1 and e.build = $2 and ($3::integer is null or e.partition = $3)`,
      [projection, build, partition],
    )
    return new Set(rows.map(({ stream }) => stream))
  }

  /** Streams of which somebody wants something done. */
  async requestedStreams({ projection, build, partition }: Holding): Promise<StreamParts[]> {
    const { rows } = await this.#db.query<StreamParts & pg.QueryResultRow>(
      `select e.aggregate_type as type, e.aggregate_id as id from ${this.#place}.parked_event as e
       where e.projection = $1 and e.build = $2 and e.partition = $3 and e.request is not null
       group by 1, 2 order by min(e.id)`,
      [projection, build, partition],
    )
    return rows
  }

  /** The first parked event of a stream. */
  async parkedHead(
    { projection, build, partition }: Holding,
    { type, id }: StreamParts,
  ): Promise<ParkedRow | undefined> {
    const { rows } = await this.#db.query<ParkedRow & pg.QueryResultRow>(
      `select e.id::text, e.position::text, e.request from ${this.#place}.parked_event as e
       where e.projection = $1 and e.build = $2 and e.partition = $3 and e.aggregate_type = $4 and e.aggregate_id = $5
       order by e.position limit 1`,
      [projection, build, partition, type, id],
    )
    return rows[0]
  }

  /** It went through. What stands behind it is wanted from now on, whoever has the partition then. */
  async unpark(db: Queryable, id: string): Promise<void> {
    await db.query(
      `with gone as (delete from ${this.#place}.parked_event as e where e.id = $1 returning e.*)
       update ${this.#place}.parked_event as n set request = 'retry' from gone as g
       where n.request is null and n.id = (
         select e.id from ${this.#place}.parked_event as e
         where e.projection = g.projection and e.build = g.build and e.partition = g.partition
           and e.aggregate_type = g.aggregate_type and e.aggregate_id = g.aggregate_id and e.position > g.position
         order by e.position limit 1
       )`,
      [id],
    )
  }

  /** Removes those of a stream that somebody wants discarded. What stood behind the first one is wanted from now on. */
  async discardParked(
    db: Queryable,
    { projection, build, partition }: Holding,
    { type, id }: StreamParts,
  ): Promise<void> {
    const ofStream =
      'e.projection = $1 and e.build = $2 and e.partition = $3 and e.aggregate_type = $4 and e.aggregate_id = $5'
    await db.query(
      `with gone as (
         delete from ${this.#place}.parked_event as e where ${ofStream} and e.request = 'discard' returning e.id, e.position
       )
       update ${this.#place}.parked_event as n set request = 'retry'
       where n.request is null and n.position > (select min(g.position) from gone as g) and n.id = (
         select e.id from ${this.#place}.parked_event as e
         where ${ofStream} and e.id not in (select g.id from gone as g) order by e.position limit 1
       )`,
      [projection, build, partition, type, id],
    )
  }

  /** Whether its checkpoint speaks of the events that are here. */
  async isAnchored(holding: Holding): Promise<boolean> {
    const { rows } = await this.#db.query<{ is_anchored: boolean }>(
      `select ${this.#place}.is_projection_anchored(p.position, p.anchor_position, p.anchor_id) as is_anchored
       from ${this.#place}.projection_partition as p
       where p.projection = $1 and p.build = $2 and p.partition = $3 and p.owner = $4 and p.epoch = $5`,
      values(holding),
    )
    return rows[0]?.is_anchored !== false
  }

  /** A retry has failed: it is done, and its stream waits again, unless somebody wants it discarded by now. */
  async parkedAgain(id: string, code: string, error: string): Promise<void> {
    await this.#db.query(
      `update ${this.#place}.parked_event as e set attempts = e.attempts + 1, error_code = $2, error = $3, request = nullif(e.request, 'retry'),
         first_attempt_at = coalesce(e.first_attempt_at, clock_timestamp()), last_attempt_at = clock_timestamp()
       where e.id = $1`,
      [id, code, error],
    )
  }

  /** Committed events after a position, as stored. */
  async events(
    db: Queryable | undefined,
    range: {
      readonly after: bigint
      readonly until: bigint | undefined
      readonly categories: readonly string[] | undefined
      readonly limit: number
    },
  ): Promise<RecordedEvent[]> {
    const text = await this.#value<string | null>(db ?? this.#db, 'projection_events($1, $2, $3, $4)', [
      range.after.toString(),
      range.until?.toString() ?? null,
      range.categories ?? null,
      range.limit,
    ])
    return eventsOf(text)
  }

  /** Rows written to tables by this connection: it only grows within a transaction. */
  async rowsWritten(db: Queryable, tables: readonly string[]): Promise<bigint> {
    const { rows } = await db.query<{ written: string }>(
      `select coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid)), 0)::text as written
       from unnest($1::text[]) as t (name) join pg_class as c on c.oid = to_regclass(t.name)`,
      [tables],
    )
    return BigInt(rows[0]?.written ?? 0)
  }

  /** Which of these tables belong to another role, in whose name this one cannot act. */
  async foreignOf(db: Queryable, tables: readonly string[]): Promise<string[]> {
    const { rows } = await db.query<{ name: string }>(
      `select t.name from unnest($1::text[]) as t (name) join pg_class as c on c.oid = to_regclass(t.name)
       where not pg_has_role(c.relowner, 'usage') order by 1`,
      [tables],
    )
    return rows.map(({ name }) => name)
  }

  /** Foreign keys between tables that have one of `copied` at an end: a copy has none. */
  async foreignKeysOf(db: Queryable, tables: readonly string[], copied: readonly string[]): Promise<string[]> {
    const { rows } = await db.query<{ what: string }>(
      `select 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass::text || ' to ' || k.confrelid::regclass::text as what
       from pg_constraint as k
       where k.contype = 'f' and k.conrelid in (select to_regclass(u.name) from unnest($1::text[]) as u (name))
         and (select array_agg(to_regclass(u.name)) from unnest($2::text[]) as u (name)) && array[k.conrelid, k.confrelid]::regclass[]
       order by 1`,
      [tables, copied],
    )
    return rows.map(({ what }) => what)
  }

  /** What stands in the way of exchanging tables. */
  async hungOn(db: Queryable, tables: readonly string[]): Promise<string[]> {
    return this.#value(db, 'projection_hung_on($1)', [tables])
  }

  async #value<Value>(db: Queryable, call: string, parameters: readonly unknown[], first?: string): Promise<Value> {
    const text =
      first === undefined
        ? `select ${this.#place}.${call} as value`
        : `with first as materialized (${first}) select ${this.#place}.${call} as value from first`
    const { rows } = await db.query<{ value: Value }>(text, [...parameters])
    return rows[0]?.value as Value
  }
}

function values({ projection, build, partition, owner, epoch }: Holding): unknown[] {
  return [projection, build, partition, owner, epoch]
}

/** What a caller sees of an error of the bookkeeping. */
export function projectionStoreError(error: unknown, doing: string, schema: string): TrunklineError {
  const state = sqlStateOf(error)
  if (state === '3F000' || state === '42883' || state === '42P01') {
    return new TrunklineError(`${doing}: schema "${schema}" has no projections.`, {
      code: 'schema_missing',
      hint: 'Run: trunkline migrate (or call migrate()) as the owner of the schema.',
      details: { schema },
      cause: error,
    })
  }
  if (state === '42501') {
    return new InvalidInputError(`${doing}: ${messageOf(error)}.`, {
      code: 'no_privilege',
      hint: `To run projections: select ${schema}.grant_projections('role'), and rights on their tables. To rebuild: own the tables, and CREATE on their schema.`,
      cause: error,
    })
  }
  return toTrunklineError(error, doing)
}
