import { AssertionError, deepStrictEqual } from 'node:assert'
import { inspect, isDeepStrictEqual } from 'node:util'
import {
  type AnyUpcaster,
  type Decided,
  type Decider,
  EventCatalog,
  type EventVersion,
  Replay,
  type UpcastEvent,
} from '../aggregates/index.ts'
import { messageOf } from '../core/index.ts'

/** Which events a command leads to. */
type Decision<Event extends UpcastEvent> = Decided<Event> | readonly Decided<Event>[] | undefined

/** What a decider is: the options of `events.aggregate` will do, with the function that decides where there is one. */
export interface DeciderUnderTest<State, Event extends UpcastEvent, Command> extends Decider<State, Event> {
  /** Without one, the command that `when` is given is the function itself, as `handle` takes it: `(state) => events`. */
  readonly decide?: ((state: State, command: Command) => Decision<Event>) | undefined
  /** With these, `given` takes old events, too: `{ type, schemaVersion, payload }`. One without schemaVersion has the newest form. */
  readonly upcasters?: readonly AnyUpcaster[] | undefined
}

/** What an error is expected to be: its class, a part of its message, or some of its fields. */
export type ExpectedError =
  | (abstract new (...parameters: never[]) => Error)
  | RegExp
  | string
  | Readonly<Record<string, unknown>>

/** What a command is expected to come to. */
export interface ExpectedOutcome<State, Event> {
  /** What is decided: all of it, in order. */
  readonly events?: readonly Event[]
  /** The state after it. */
  readonly state?: State
  /** It is refused. */
  readonly error?: ExpectedError
}

export interface WhenStep<State, Event> {
  /**
   * Says what is expected: a list of events, or `{ events, state, error }` with one of them or more.
   *
   * @throws AssertionError of node:assert, which every test runner prints with its difference.
   */
  then(expected: readonly Event[] | ExpectedOutcome<State, Event>): void
}

export interface GivenStep<State, Event, Command> {
  /** The command under test. */
  when(command: Command): WhenStep<State, Event>
}

export interface Specification<State, Event, Command> {
  /** What has happened so far, oldest first; nothing: `given([])`. */
  given(events: readonly (Event | (EventVersion & UpcastEvent))[]): GivenStep<State, Event, Command>
}

/**
 * A specification of a decider: given events, when a command, then events, a state or an error. Needs no database and no test
 * runner. Payloads are compared as they would be stored, that is as JSON.
 *
 * @example specify({ initialState, evolve }).given([opened]).when((state) => ship(state)).then([shipped])
 */
export function specify<State, Event extends UpcastEvent, Command = (state: State) => Decision<Event>>(
  decider: DeciderUnderTest<State, Event, Command>,
): Specification<State, Event, Command> {
  const catalog = new EventCatalog('given', { upcasters: decider.upcasters })
  const replay = new Replay<State, Event>(decider, catalog, false)
  const stateAfter = (events: readonly UpcastEvent[]): State =>
    replay.apply(
      replay.initial('given'),
      events.map((event, index) => recorded(catalog, event, index)),
    )
  return {
    given: (events) => ({
      when: (command) => ({
        // oxlint-disable-next-line unicorn/no-thenable -- given, when, then: the field's own words; awaiting it fails with a text
        then: (expected) => {
          refuseAwait(expected)
          const before = stateAfter(events)
          const outcome = decideWith(decider, before, command)
          const title = `Given ${events.length} event${events.length === 1 ? '' : 's'}, when ${shown(command)}`
          if (Array.isArray(expected)) return checkEvents(title, outcome, expected as readonly Event[])
          check(title, outcome, expected as ExpectedOutcome<State, Event>, (decided) =>
            stateAfter([...events, ...decided]),
          )
        },
      }),
    }),
  }
}

type Outcome<Event> = { readonly events: readonly Event[] } | { readonly error: unknown }

function decideWith<State, Event extends UpcastEvent, Command>(
  { decide }: DeciderUnderTest<State, Event, Command>,
  state: State,
  command: Command,
): Outcome<Event> {
  let decided: unknown
  try {
    decided = decide === undefined ? (command as (state: State) => unknown)(state) : decide(state, command)
  } catch (error) {
    return { error }
  }
  if (decided instanceof Promise) {
    decided.catch(() => undefined)
    throw new AssertionError({
      message: 'The decision is a promise. Specify a synchronous one, and fetch what it needs before.',
    })
  }
  return { events: decided === undefined ? [] : Array.isArray(decided) ? (decided as Event[]) : [decided as Event] }
}

function check<State, Event extends UpcastEvent>(
  title: string,
  outcome: Outcome<Event>,
  expected: ExpectedOutcome<State, Event>,
  stateAfter: (events: readonly Event[]) => State,
): void {
  if ('error' in expected) return checkError(title, outcome, expected.error)
  if (expected.events !== undefined || !('state' in expected)) checkEvents(title, outcome, expected.events ?? [])
  if (!('state' in expected)) return
  if ('error' in outcome) throw refused(title, outcome.error, expected)
  compare(`${title}: another state than expected.`, stateAfter(outcome.events), expected.state)
}

function checkEvents<Event extends UpcastEvent>(
  title: string,
  outcome: Outcome<Event>,
  expected: readonly Event[],
): void {
  if ('error' in outcome) throw refused(title, outcome.error, expected)
  compare(`${title}: other events than expected.`, outcome.events.map(jsonOf), expected.map(jsonOf))
}

function checkError<Event>(title: string, outcome: Outcome<Event>, expected: ExpectedError | undefined): void {
  if ('events' in outcome) {
    throw new AssertionError({
      message: `${title}: expected an error, and it decided ${shown(outcome.events)}.`,
      actual: outcome.events,
      expected,
    })
  }
  if (isExpected(outcome.error, expected)) return
  throw new AssertionError({
    message: `${title}: another error than expected.\n+ actual: ${shown(outcome.error)}\n- expected: ${shown(expected)}`,
    actual: outcome.error,
    expected,
  })
}

function isExpected(error: unknown, expected: ExpectedError | undefined): boolean {
  if (expected === undefined) return true
  if (typeof expected === 'string') return messageOf(error).includes(expected)
  if (expected instanceof RegExp) return expected.test(messageOf(error))
  if (typeof expected === 'function') return error instanceof expected
  if (typeof error !== 'object' || error === null) return false
  const fields = error as Record<string, unknown>
  return Object.entries(expected).every(([name, value]) => isDeepStrictEqual(fields[name], value))
}

function refused(title: string, error: unknown, expected: unknown): AssertionError {
  return new AssertionError({
    message: `${title}: it was refused, and ${shown(expected)} was expected.\n${shown(error)}`,
    actual: error,
    expected,
  })
}

function compare(title: string, actual: unknown, expected: unknown): void {
  try {
    deepStrictEqual(actual, expected)
  } catch (error) {
    throw new AssertionError({
      message: `${title}\n${messageOf(error)}`,
      actual,
      expected,
      operator: 'deepStrictEqual',
    })
  }
}

/** An awaited object is asked for its `then` with two functions. */
function refuseAwait(expected: unknown): void {
  if (typeof expected !== 'function') return
  throw new AssertionError({ message: 'when(…) is no promise: do not await it, say what is expected with .then([…]).' })
}

function jsonOf({ type, payload }: UpcastEvent): UpcastEvent {
  return { type, payload: JSON.parse(JSON.stringify(payload ?? null)) as unknown }
}

function recorded(
  catalog: EventCatalog,
  event: UpcastEvent & { readonly schemaVersion?: number },
  index: number,
): Parameters<Replay<never, never>['apply']>[1][number] {
  return {
    ...jsonOf(event),
    schemaVersion: event.schemaVersion ?? catalog.newestVersion(event.type),
    position: String(index + 1),
    id: `00000000-0000-7000-8000-${String(index + 1).padStart(12, '0')}`,
    stream: 'given',
    aggregateType: 'given',
    aggregateId: '',
    version: index + 1,
    metadata: {},
    createdAt: new Date(index),
  }
}

function shown(value: unknown): string {
  if (typeof value === 'function') return value.name === '' ? 'a function is called' : value.name
  if (value instanceof Error) return `${value.name}: ${value.message}`
  return inspect(value, { depth: 5, breakLength: 120 })
}
