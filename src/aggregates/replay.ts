import { InvalidInputError, messageOf } from '../core/index.ts'
import type { RecordedEvent } from '../events/index.ts'
import type { Decider } from './aggregate-options.ts'
import type { EventCatalog } from './event-catalog.ts'
import { EventError } from './event-error.ts'
import { copyOf } from './state-copy.ts'
import type { UpcastEvent } from './upcaster.ts'

/** Applies events to states of one kind of aggregate, and says which event it was that could not be applied. */
export class Replay<State, Event extends UpcastEvent> {
  readonly #decider: Decider<State, Event>
  readonly #catalog: EventCatalog
  readonly #ignoresUnknown: boolean

  /** @throws InvalidInputError `invalid_option`: the initial state cannot be copied. */
  constructor(decider: Decider<State, Event>, catalog: EventCatalog, ignoresUnknown: boolean) {
    const { initialState } = decider
    if (typeof initialState !== 'function' && copyOf(initialState) === undefined) throw uncopied(catalog.category)
    this.#decider = decider
    this.#catalog = catalog
    this.#ignoresUnknown = ignoresUnknown
  }

  /** The state before the first event. */
  initial(id: string): State {
    const { initialState } = this.#decider
    if (typeof initialState === 'function') return (initialState as (id: string) => State)(id)
    // A copy, so that an evolve that changes what it is given changes nobody else's beginning.
    return copyOf(initialState)?.state ?? initialState
  }

  /**
   * The state after stored events, whose personal data is open.
   *
   * @throws EventError.
   */
  apply(state: State, events: readonly RecordedEvent[]): State {
    let result = state
    for (const event of this.#catalog.upcast(events)) {
      if (this.#catalog.isKnown(event.type) === false) {
        if (this.#ignoresUnknown) continue
        throw unknown(event, 'the aggregate has no such event')
      }
      this.#catalog.checkVersion(event)
      result = this.#evolve(result, event)
    }
    return result
  }

  #evolve(state: State, event: RecordedEvent): State {
    let next: State
    try {
      // Which of its events it is only its type says, and that is what evolve asks first.
      next = this.#decider.evolve(state, event as unknown as Event)
    } catch (error) {
      throw failed(event, messageOf(error), error)
    }
    if (next === undefined && this.#catalog.isKnown(event.type) === undefined) {
      if (this.#ignoresUnknown) return state
      throw unknown(event, 'evolve gave no state for it')
    }
    if (next === undefined) throw failed(event, 'it returned nothing')
    if (next instanceof Promise) throw failed(event, 'it returned a promise, and evolve is synchronous')
    return next
  }
}

function uncopied(category: string): InvalidInputError {
  return new InvalidInputError(
    `Wrong options: initialState of aggregate "${category}" is or holds what cannot be copied for each load: an instance of a class, or a function.`,
    { code: 'invalid_option', hint: 'Pass a function that makes it: initialState: () => new Order().' },
  )
}

function unknown(event: RecordedEvent, found: string): EventError {
  return new EventError(event, `${found}.`, {
    code: 'unknown_event_type',
    hint: "Let evolve handle it, add an upcaster for it, or set unknownEvents: 'ignore'.",
  })
}

function failed(event: RecordedEvent, why: string, cause?: unknown): EventError {
  return new EventError(event, `evolve failed: ${why}.`, {
    code: 'evolve_failed',
    hint: 'An event cannot be refused when it is replayed: let evolve take it, and decide refuse commands.',
    cause,
  })
}
