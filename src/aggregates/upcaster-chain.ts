import { InvalidInputError, messageOf, shown } from '../core/index.ts'
import { EventError } from './event-error.ts'
import type { AnyUpcaster, EventVersion, UpcastEvent, UpcastSource } from './upcaster.ts'

/** An event as it is stored, or on its way through the upcasters. */
export interface UpcastableEvent extends UpcastSource {
  readonly payload: unknown
}

interface Step {
  readonly to: readonly EventVersion[]
  /** Payload in, payload out; or events out, when it splits. */
  readonly upcast: (payload: unknown, event: UpcastSource) => unknown
  readonly isSplit: boolean
}

/** The upcasters of one aggregate type, checked as a whole: chained, without a cycle, and each type with one newest shape. */
export class UpcasterChain {
  readonly #steps = new Map<string, Step>()
  /** By type: the shape that no upcaster starts from. Undefined: the type is only read, never written any more. */
  readonly #newest = new Map<string, number | undefined>()

  /** @throws InvalidInputError `invalid_upcaster`. */
  constructor(upcasters: readonly AnyUpcaster[]) {
    for (const upcaster of upcasters) this.#add(upcaster)
    for (const { from } of upcasters) this.#refuseCycle(from, [])
    this.#findNewest(upcasters)
  }

  get isEmpty(): boolean {
    return this.#steps.size === 0
  }

  /** Whether events of a type are known to it, be it as what an upcaster starts from or as what one makes. */
  knows(type: string): boolean {
    return this.#newest.has(type)
  }

  /** The schema version in which events of a type are written; 1 where no upcaster names it, undefined where it is out of use. */
  newest(type: string): number | undefined {
    return this.#newest.has(type) ? this.#newest.get(type) : 1
  }

  /**
   * What a stored event is today: none, one or several events, all with its id, version, time and metadata.
   *
   * @throws EventError `upcaster_failed`.
   */
  upcast<Event extends UpcastableEvent>(event: Event): Event[] {
    if (this.#steps.size === 0) return [event]
    const result: Event[] = []
    const waiting = [event]
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const step = this.#steps.get(keyOf(next))
      if (step === undefined) result.push(next)
      else waiting.push(...makeEvents(step, next).toReversed())
    }
    return result
  }

  #add({ from, to, upcast }: AnyUpcaster): void {
    const isSplit = Array.isArray(to)
    const targets = (isSplit ? to : [to]) as readonly EventVersion[]
    for (const one of [from, ...targets]) checkEventVersion(one)
    if (this.#steps.has(keyOf(from))) throw invalid(`two upcasters start from ${nameOf(from)}`, 'Keep one of them.')
    if (targets.length > 0 && typeof upcast !== 'function') {
      throw invalid(`the upcaster of ${nameOf(from)} has no function`, 'Give upcast: (payload) => the new payload.')
    }
    // An event that is dropped needs no function.
    const run = (upcast ?? (() => [])) as Step['upcast']
    this.#steps.set(keyOf(from), { to: targets, upcast: run, isSplit })
  }

  #refuseCycle(from: EventVersion, above: readonly string[]): void {
    if (above.includes(keyOf(from))) {
      throw invalid(`the upcasters of ${nameOf(from)} lead back to it`, 'Let each lead to a newer schema version.')
    }
    for (const to of this.#steps.get(keyOf(from))?.to ?? []) this.#refuseCycle(to, [...above, keyOf(from)])
  }

  #findNewest(upcasters: readonly AnyUpcaster[]): void {
    for (const { from } of upcasters) this.#newest.set(from.type, undefined)
    for (const { to } of upcasters) {
      for (const one of (Array.isArray(to) ? to : [to]) as readonly EventVersion[]) {
        if (this.#steps.has(keyOf(one))) continue
        const other = this.#newest.get(one.type)
        if (other !== undefined && other !== one.schemaVersion) {
          const [older, newer] = [other, one.schemaVersion].toSorted((a, b) => a - b)
          throw invalid(
            `upcasters of "${one.type}" end at schema versions ${older} and ${newer}`,
            `Add one from ${older} to ${newer}.`,
          )
        }
        this.#newest.set(one.type, one.schemaVersion)
      }
    }
  }
}

function makeEvents<Event extends UpcastableEvent>(step: Step, event: Event): Event[] {
  let made: unknown
  try {
    made = step.upcast(event.payload, event)
  } catch (error) {
    throw failed(event, messageOf(error), error)
  }
  if (made instanceof Promise) {
    made.catch(() => undefined)
    throw failed(event, 'it returned a promise, and an upcaster is synchronous')
  }
  if (step.isSplit) return splitEvents(step, event, made)
  const [to] = step.to
  if (made === undefined) throw failed(event, 'it returned nothing, expected the new payload')
  return to === undefined ? [] : [madeOf(event, to, made)]
}

function splitEvents<Event extends UpcastableEvent>(step: Step, event: Event, made: unknown): Event[] {
  if (!Array.isArray(made)) throw failed(event, 'it returned no list, and it splits the event (its `to` is a list)')
  return (made as (UpcastEvent | undefined)[]).map((part) => {
    const to = step.to.find(({ type }) => type === part?.type)
    if (part === undefined || to === undefined) {
      throw failed(event, `it made an event "${String(part?.type)}", which its \`to\` does not name`)
    }
    return madeOf(event, to, part.payload)
  })
}

function madeOf<Event extends UpcastableEvent>(
  event: Event,
  { type, schemaVersion }: EventVersion,
  payload: unknown,
): Event {
  return { ...event, type, schemaVersion, payload }
}

function failed(event: UpcastableEvent, why: string, cause?: unknown): EventError {
  return new EventError(event, `its upcaster failed: ${why}.`, {
    code: 'upcaster_failed',
    hint: 'The stored event is as it was: mend the upcaster.',
    cause,
  })
}

function checkEventVersion({ type, schemaVersion }: EventVersion): void {
  const isVersion = Number.isSafeInteger(schemaVersion) && schemaVersion >= 1 && schemaVersion < 2 ** 31
  if (typeof type === 'string' && type !== '' && isVersion) return
  throw invalid(
    `found type ${shown(type)}, schemaVersion ${shown(schemaVersion)}`,
    'Give { type, schemaVersion }: a text and a whole number from 1.',
  )
}

function invalid(found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`Wrong upcasters: ${found}.`, { code: 'invalid_upcaster', hint })
}

function keyOf({ type, schemaVersion }: EventVersion): string {
  return `${schemaVersion} ${type}`
}

function nameOf({ type, schemaVersion }: EventVersion): string {
  return `"${type}" version ${schemaVersion}`
}
