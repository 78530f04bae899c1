import { InvalidInputError, shown } from '../core/index.ts'
import { type EventMetadata, streamParts } from '../events/index.ts'
import type { EventDefinitions } from './event-catalog.ts'
import type { AnyUpcaster, CheckedUpcasters, UpcastEvent } from './upcaster.ts'

/** Default of `hotMax`. */
export const hotMaxDefault = 1_000
/** Default of `retriesMax`. */
export const retriesMaxDefault = 10

/** What a decider is made of: pure functions, for `aggregate` and for the kit in `trunkline/testing`. */
export interface Decider<State, Event extends UpcastEvent> {
  /**
   * Before its first event: each load begins with a copy. Or a function that makes it, which is given the aggregate's id; an instance
   * of a class needs one.
   */
  readonly initialState: State | ((id: string) => State)
  /** The state after an event. Pure and synchronous; it may change the state that it is given. */
  readonly evolve: (state: State, event: Event) => State
}

/** How events are declared: for an aggregate, or for who only reads or appends them (`events.declare`). */
export interface EventsDeclaration<Event extends UpcastEvent, Upcasters extends readonly AnyUpcaster[]> {
  /** The aggregate's type: what stands before the first `-` in the name of its streams. */
  readonly type: string
  /**
   * Every type of event that it has, with schema and personal fields: `{ 'order-placed': {}, … }`. With it, other types are refused
   * when they are appended or loaded. Default: any type.
   */
  readonly events?: EventDefinitions<Event> | undefined
  /** How old events become today's. Default none. */
  readonly upcasters?: (Upcasters & CheckedUpcasters<Upcasters, Event>) | undefined
  /** When payloads are checked against their schema: before they are written, or also when they are read. Default `append`. */
  readonly validate?: 'append' | 'read' | undefined
}

/** How a state becomes JSON and is made of it again. */
export interface StateCodec<State> {
  readonly encode: (state: State) => unknown
  readonly decode: (json: unknown) => State
}

export interface AggregateOptions<
  State,
  Event extends UpcastEvent,
  Upcasters extends readonly AnyUpcaster[] = readonly AnyUpcaster[],
>
  extends Decider<State, Event>, EventsDeclaration<Event, Upcasters> {
  /** What an event of a type does that neither `events` nor `evolve` knows: `error` (the default), or `ignore`. */
  readonly unknownEvents?: 'error' | 'ignore' | undefined
  /**
   * Events between two stored snapshots. Default: none are stored. Fewer make loads cheaper, and store a state more often. Raise
   * `stateVersion` with every change of `evolve` or of the state: older snapshots are then not read.
   */
  readonly snapshotEvery?: number | undefined
  /** The version of the state's shape. Two aggregates of one type with different states need different ones. Default 1. */
  readonly stateVersion?: number | undefined
  /** For a state that JSON does not hold (Map, Date, a class): without one, its snapshots are not stored. Default: JSON as it is. */
  readonly stateCodec?: StateCodec<State> | undefined
  /** States that are kept in memory, the last ones used. Default 1,000; 0: none. */
  readonly hotMax?: number | undefined
  /** Attempts of `handle` after its first one, when somebody else was faster. Default 10. */
  readonly retriesMax?: number | undefined
}

/** An event as a command makes it: type and payload, and an id, a schema version or metadata where wanted. */
export type Decided<Event extends UpcastEvent> = Event extends UpcastEvent
  ? Event & {
      readonly id?: string | undefined
      readonly schemaVersion?: number | undefined
      readonly metadata?: EventMetadata | undefined
    }
  : never

/** Checks what the compiler may not have seen. @throws InvalidInputError `invalid_option`. */
export function checkAggregateOptions(options: {
  readonly type: string
  readonly evolve: unknown
  readonly snapshotEvery?: number | undefined
  readonly stateVersion?: number | undefined
  readonly hotMax?: number | undefined
  readonly retriesMax?: number | undefined
}): void {
  checkCategory(options.type)
  if (typeof options.evolve !== 'function') {
    throw invalid(`evolve of aggregate "${options.type}" is no function`, 'Pass (state, event) => the next state.')
  }
  if (!('initialState' in options)) {
    throw invalid(
      `aggregate "${options.type}" has no initialState`,
      'Pass the state before the first event, null for none.',
    )
  }
  for (const [name, min] of [
    ['snapshotEvery', 1],
    ['stateVersion', 1],
    ['hotMax', 0],
    ['retriesMax', 0],
  ] as const) {
    const value: unknown = options[name]
    if (value === undefined || (Number.isSafeInteger(value) && (value as number) >= min && (value as number) < 2 ** 31))
      continue
    throw invalid(`${name} of aggregate "${options.type}" is ${shown(value)}`, `Pass a whole number from ${min} on.`)
  }
}

/** @throws InvalidInputError `invalid_option`, `invalid_stream`: it is no aggregate type. */
export function checkCategory(type: unknown): void {
  if (typeof type !== 'string')
    throw invalid('an aggregate has no type', 'Pass type: "order", for streams named "order-17".')
  streamParts({ type, id: '' })
}

function invalid(found: string, hint: string): InvalidInputError {
  return new InvalidInputError(`Wrong options: ${found}.`, { code: 'invalid_option', hint })
}
