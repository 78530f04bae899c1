import type { NewEvent, RecordedEvent } from '../events/index.ts'
import type { Queryable } from '../postgres/index.ts'
import type { PreparedEvent } from './event-catalog.ts'
import { EventError } from './event-error.ts'
import { hasBoxes, openPayload, sealPayload, subjectsOf } from './personal-boxes.ts'
import type { SubjectKeys } from './subject-keys.ts'

/**
 * Prepared events with their personal fields sealed. Nothing is asked where there are none.
 *
 * @throws EventError `subject_forgotten`.
 */
export async function sealEvents(
  keys: SubjectKeys,
  db: Queryable,
  stream: string,
  prepared: readonly PreparedEvent[],
): Promise<NewEvent[]> {
  const subjects = prepared.flatMap(({ personal }) => personal.map(({ subject }) => subject))
  if (subjects.length === 0) return prepared.map(({ event }) => event)
  const found = await keys.forWriting(db, subjects)
  return prepared.map(({ event, plain, personal }) => {
    if (personal.length === 0) return event
    const place = { type: event.type, schemaVersion: event.schemaVersion, stream, id: event.id }
    const payload = sealPayload({ ...place, payload: plain as object }, personal, (subject) => {
      const key = found.get(subject)
      if (key !== undefined) return key
      throw new EventError(place, `subject "${subject}" is forgotten.`, {
        code: 'subject_forgotten',
        hint: 'Nothing personal can be written of it any more: leave it out, or use a new subject.',
        details: { subject },
      })
    })
    return { ...event, payload }
  })
}

/** Events with their personal data readable, and whose it is: of those who are forgotten there is the placeholder. */
export interface OpenedEvents {
  readonly events: readonly RecordedEvent[]
  /** Whose data could be read. */
  readonly subjects: ReadonlySet<string>
  /** Ids of the events of which something is forgotten. */
  readonly forgotten: ReadonlySet<string>
}

const nobody: ReadonlySet<string> = new Set()

/**
 * Opens the personal fields of events that were read, with one look at the keys where any event has some.
 *
 * @throws EventError `personal_data_unreadable`.
 */
export async function openEvents(
  keys: SubjectKeys,
  db: Queryable,
  events: readonly RecordedEvent[],
): Promise<OpenedEvents> {
  const sealed = events.filter(({ payload }) => hasBoxes(payload)) as (RecordedEvent & { payload: object })[]
  if (sealed.length === 0) return { events, subjects: nobody, forgotten: nobody }
  const found = await keys.forReading(db, sealed.flatMap(subjectsOf))
  const subjects = new Set<string>()
  const forgotten = new Set<string>()
  const opened = events.map((event) => {
    if (!hasBoxes(event.payload)) return event
    const result = openPayload({ ...event, payload: event.payload }, (subject) => found.get(subject))
    for (const subject of result.opened) subjects.add(subject)
    if (result.isForgotten) forgotten.add(event.id)
    return { ...event, payload: result.payload }
  })
  return { events: opened, subjects, forgotten }
}
