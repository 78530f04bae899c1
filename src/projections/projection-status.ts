import type pg from 'pg'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'

/** How far the events that a projection has not handled are counted. */
export const projectionLagMax = 10_000

/** What a build that is being made, or the live one, looks like. */
export interface BuildStatus {
  readonly version: number
  readonly mode: 'inline' | 'async'
  /** Up to here everything is handled; inline: null, everything always is. */
  readonly position: string | null
  /** Events of its categories after it, counted up to `projectionLagMax`. */
  readonly lagEvents: number
  /** Age of the oldest of them in seconds; null without one. */
  readonly lagSeconds: number | null
  /** Processes that work on it, as host:pid. */
  readonly processes: readonly string[]
  readonly partitions: number
  /** The event that does not go through, or what else keeps it; null: nothing. */
  readonly error: ProjectionFailure | null
  readonly parked: number
}

export interface ProjectionFailure {
  readonly code: string
  readonly message: string
  /** Null: it is no event's fault. */
  readonly position: string | null
  readonly stream: string | null
  readonly attempts: number
  readonly since: Date
  /** How many partitions wait. */
  readonly partitions: number
}

/** A projection, as its tables tell. */
export interface ProjectionStatus extends BuildStatus {
  readonly name: string
  /**
   * `running`; `failing`: an event does not go through; `idle`: async, and no process runs it; `building`: there is nothing live yet.
   * Inline it is always `running`: whoever appends runs it.
   */
  readonly state: 'running' | 'failing' | 'idle' | 'building'
  /** The build that is made beside it; null: none. */
  readonly building: BuildStatus | null
}

interface Row extends pg.QueryResultRow {
  readonly name: string
  readonly state: 'building' | 'live'
  readonly version: number
  readonly mode: 'inline' | 'async'
  readonly position: string
  readonly lagEvents: number
  readonly lagSeconds: number | null
  readonly processes: string[]
  readonly partitions: number
  readonly error: (Omit<ProjectionFailure, 'since'> & { readonly since: string }) | null
  readonly parked: number
}

/** All projections, or the one of a name. @throws what the driver throws. */
export async function projectionStatuses(db: Queryable, schema: string, name?: string): Promise<ProjectionStatus[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<Row>(
    `select b.projection as name, b.state, b.version, b.mode, p.position::text, b.partitions,
       case when b.mode = 'inline' and b.state = 'live' then 0 else l.count::integer end as "lagEvents",
       case when b.mode = 'inline' and b.state = 'live' then null else extract(epoch from clock_timestamp() - l.oldest)::float8 end as "lagSeconds",
       array(
         select m.process from ${s}.projection_member as m
         where m.projection = b.projection and m.build = b.build and m.expires_at > clock_timestamp() order by m.process
       ) as processes,
       (
         select json_build_object(
           'code', f.error_code, 'message', f.error, 'position', f.failing_position::text, 'stream', f.failing_stream,
           'attempts', f.attempts, 'since', f.failing_since, 'partitions', count(*) over ()
         )
         from ${s}.projection_partition as f
         where f.projection = b.projection and f.build = b.build and f.error is not null order by f.failing_since limit 1
       ) as error,
       (select count(*)::integer from ${s}.parked_event as e where e.projection = b.projection and e.build = b.build) as parked
     from ${s}.projection_build as b
     cross join lateral (
       select min(q.position) as position from ${s}.projection_partition as q where q.projection = b.projection and q.build = b.build
     ) as p
     cross join lateral (
       select count(*) as count, min(c.created_at) as oldest from (
         select e.created_at from ${s}.event as e
         where e.position > p.position and (b.categories is null or e.aggregate_type = any (b.categories))
         order by e.position limit ${projectionLagMax}
       ) as c
     ) as l
     where $1::text is null or b.projection = $1
     order by b.projection, b.state desc`,
    [name ?? null],
  )
  const names = [...new Set(rows.map((row) => row.name))]
  return names.map((one) =>
    statusOf(
      one,
      rows.filter((row) => row.name === one),
    ),
  )
}

function statusOf(name: string, rows: readonly Row[]): ProjectionStatus {
  const live = rows.find(({ state }) => state === 'live')
  const building = rows.find(({ state }) => state === 'building')
  const shown = buildOf((live ?? building) as Row)
  return {
    name,
    state: live === undefined ? 'building' : stateOf(shown),
    ...shown,
    building: building === undefined ? null : buildOf(building),
  }
}

function stateOf({ mode, error, processes }: BuildStatus): ProjectionStatus['state'] {
  if (mode === 'inline') return 'running'
  if (processes.length === 0) return 'idle'
  return error === null ? 'running' : 'failing'
}

function buildOf(row: Row): BuildStatus {
  const { version, mode, lagEvents, lagSeconds, processes, partitions, parked, error, state, position } = row
  return {
    version,
    mode,
    position: mode === 'inline' && state === 'live' ? null : position,
    lagEvents,
    lagSeconds,
    processes,
    partitions,
    parked,
    error: error === null ? null : { ...error, since: new Date(error.since) },
  }
}
