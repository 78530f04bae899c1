import { eventError, eventsOf, type RecordedEvent, type StreamParts, streamName } from '../events/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { EventCatalog } from './event-catalog.ts'
import type { LoadedState } from './hot-states.ts'
import { openEvents } from './personal-data.ts'
import type { Replay } from './replay.ts'
import type { Snapshots, StoredSnapshot } from './snapshots.ts'
import type { SubjectKeys } from './subject-keys.ts'
import type { UpcastEvent } from './upcaster.ts'

/** Events of one page of a load. */
const pageRows = 2_000
/** Bytes of payload after which a page of a load ends. */
const pageBytes = 16 * 1024 * 1024

/** How far a load goes. */
export interface LoadLimit {
  readonly toVersion: number | undefined
  readonly asOf: string | null
}

export interface LoadContext<State, Event extends UpcastEvent> {
  readonly schema: string
  readonly keys: SubjectKeys
  readonly catalog: EventCatalog
  readonly replay: Replay<State, Event>
  readonly snapshots: Snapshots<State>
  /** Of the snapshots to be read; undefined: none. */
  readonly stateVersion: number | undefined
}

interface PageRow extends Record<string, unknown> {
  readonly head: string
  readonly base: string
  readonly base_id: string | null
  readonly state: string | null
  readonly subjects: string | null
  readonly events: string | null
}

const nobody: ReadonlySet<string> = new Set()

/**
 * Computes the state of an aggregate: from what is in memory, else from a stored snapshot, else from nothing, and all events after
 * it. Each page says anew what it follows on, so that what is forgotten, or lost in a restore, between two pages counts.
 *
 * @param hot where to begin, if the server finds that it still holds.
 */
export async function loadState<State, Event extends UpcastEvent>(
  context: LoadContext<State, Event>,
  db: Queryable,
  stream: StreamParts,
  { hot, limit }: { readonly hot: LoadedState<State> | undefined; readonly limit: LoadLimit },
): Promise<LoadedState<State>> {
  let loaded = hot
  let { stateVersion } = context
  for (;;) {
    const page = await readPage(context.schema, db, stream, { stateVersion, loaded, limit })
    const stored = snapshotOf(page)
    if (stored !== undefined) {
      const opened = await context.snapshots.open(db, stream, stored)
      if (opened === undefined) {
        stateVersion = undefined
        loaded = undefined
        continue
      }
      const { version, eventId, subjects } = stored
      loaded = { state: opened.state, version, eventId, subjects: new Set(subjects), snapshotVersion: version }
    } else if (loaded === undefined || Number(page.base) === 0) {
      const state = context.replay.initial(stream.id)
      loaded = { state, version: 0, eventId: undefined, subjects: nobody, snapshotVersion: 0 }
    }
    if (page.events !== null) loaded = await applyPage(context, db, loaded, eventsOf(page.events, stream))
    if (loaded.version >= Number(page.head)) return loaded
  }
}

/** The snapshot that a page begins with, also when it is of the very version that was in memory and does not hold. */
function snapshotOf({ base, base_id: eventId, state, subjects }: PageRow): StoredSnapshot | undefined {
  if (state === null || eventId === null) return undefined
  return { version: Number(base), eventId, state, subjects: JSON.parse(subjects ?? '[]') as string[] }
}

async function applyPage<State, Event extends UpcastEvent>(
  { keys, catalog, replay }: LoadContext<State, Event>,
  db: Queryable,
  loaded: LoadedState<State>,
  read: readonly RecordedEvent[],
): Promise<LoadedState<State>> {
  const { events, subjects, forgotten } = await openEvents(keys, db, read)
  await catalog.checkPayloads(catalog.isReadChecked ? catalog.upcast(events) : [], forgotten)
  const last = events.at(-1)
  return {
    state: replay.apply(loaded.state, events),
    version: last?.version ?? loaded.version,
    eventId: last?.id ?? loaded.eventId,
    subjects: subjects.size === 0 ? loaded.subjects : new Set([...loaded.subjects, ...subjects]),
    snapshotVersion: loaded.snapshotVersion,
  }
}

interface Place {
  readonly stateVersion: number | undefined
  readonly loaded: LoadedState<unknown> | undefined
  readonly limit: LoadLimit
}

async function readPage(
  schema: string,
  db: Queryable,
  stream: StreamParts,
  { stateVersion, loaded, limit }: Place,
): Promise<PageRow> {
  const known = loaded === undefined || loaded.version === 0 ? undefined : loaded
  try {
    const { rows } = await db.query<PageRow>(
      `select p.head::text, p.base::text, p.base_id::text, p.state, p.subjects, p.events
      from ${quoteIdentifier(schema)}.aggregate_page(
        $1::text, $2::text, $3::integer, $4::bigint, $5::uuid, $6::text, $7::bigint, $8::timestamptz, $9::integer, $10::bigint
      ) as p`,
      [
        stream.type,
        stream.id,
        stateVersion ?? null,
        known?.version ?? null,
        known?.eventId ?? null,
        JSON.stringify([...(known?.subjects ?? [])]),
        limit.toVersion ?? null,
        limit.asOf,
        pageRows,
        pageBytes,
      ],
    )
    return rows[0] as PageRow
  } catch (error) {
    throw eventError(error, `Loading ${streamName(stream)}`, schema)
  }
}
