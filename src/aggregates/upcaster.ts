/** A type of event in one of its shapes. `schemaVersion` counts from 1. */
export interface EventVersion<Type extends string = string, SchemaVersion extends number = number> {
  readonly type: Type
  readonly schemaVersion: SchemaVersion
}

/** What an upcaster may look at besides the payload. */
export interface UpcastSource extends EventVersion {
  /** Of the stored event: `type-id`. */
  readonly stream: string
  /** Of the stored event in its stream; the events that a split makes all have it. */
  readonly version: number
  readonly id: string
  readonly createdAt: Date
  readonly metadata: Readonly<Record<string, unknown>>
}

/** An event that an upcaster makes. */
export interface UpcastEvent<Type extends string = string, Payload = unknown> {
  readonly type: Type
  readonly payload: Payload
}

/**
 * How an event in an old shape becomes events in newer ones, whenever it is read; what is stored never changes. `upcast` is pure
 * and synchronous. Upcasters are chained: what one makes is looked up again, until no upcaster starts from it.
 */
export interface Upcaster<
  From extends EventVersion = EventVersion,
  OldPayload = never,
  Result extends UpcastEvent & EventVersion = UpcastEvent & EventVersion,
> {
  readonly from: From
  /** One (with the new payload as result), several (a split: `{ type, payload }` for each), or none (`[]`: it is dropped). */
  readonly to: EventVersion | readonly EventVersion[]
  readonly upcast?: ((payload: OldPayload, event: UpcastSource) => unknown) | undefined
  /** For the compiler only. */
  readonly result?: Result | undefined
}

type Single<To extends EventVersion, Payload> = To & { readonly payload: Payload }
type OneOf<To extends readonly EventVersion[], Event extends UpcastEvent> = {
  [Index in keyof To]: To[Index] & { readonly payload: Extract<Event, { readonly type: To[Index]['type'] }>['payload'] }
}[number]

/** Drops an event: replay goes on as if it had never been, and the version of the stream counts it still. */
export function upcaster<const From extends EventVersion>(definition: {
  readonly from: From
  readonly to: readonly []
}): Upcaster<From, unknown, never>
/**
 * Splits an event: `upcast` returns any number of events of the types in `to`.
 *
 * @example upcaster({ from: { type: 'moved', schemaVersion: 1 },
 *   to: [{ type: 'left', schemaVersion: 1 }, { type: 'arrived', schemaVersion: 1 }],
 *   upcast: (old: Moved) => [{ type: 'left', payload: old.from }, { type: 'arrived', payload: old.to }] })
 */
export function upcaster<
  const From extends EventVersion,
  OldPayload,
  const To extends readonly EventVersion[],
  const Event extends UpcastEvent<To[number]['type']>,
>(definition: {
  readonly from: From
  readonly to: To
  readonly upcast: (payload: OldPayload, event: UpcastSource) => readonly Event[]
}): Upcaster<From, OldPayload, OneOf<To, Event>>
/** Changes the payload of an event, or its type, or both: `upcast` returns the new payload. */
export function upcaster<
  const From extends EventVersion,
  OldPayload,
  const To extends EventVersion,
  Payload,
>(definition: {
  readonly from: From
  readonly to: To
  readonly upcast: (payload: OldPayload, event: UpcastSource) => Payload
}): Upcaster<From, OldPayload, Single<To, Payload>>
export function upcaster(definition: Upcaster): Upcaster {
  return definition
}

/** Any upcaster, whatever it takes. */
export type AnyUpcaster = Upcaster

/** The upcaster of a list that starts from an event's type and schema version. */
type Next<Upcasters extends readonly AnyUpcaster[], Event extends EventVersion> = Extract<
  Upcasters[number],
  { readonly from: { readonly type: Event['type']; readonly schemaVersion: Event['schemaVersion'] } }
>

/** `true`, or a text that says where an event leads to nothing. */
type Fit<
  Made extends UpcastEvent & EventVersion,
  Upcasters extends readonly AnyUpcaster[],
  Event extends UpcastEvent,
> = Made extends UpcastEvent & EventVersion
  ? [Next<Upcasters, Made>] extends [never]
    ? Made['type'] extends Event['type']
      ? Made['payload'] extends Extract<Event, { readonly type: Made['type'] }>['payload']
        ? true
        : `the payload made for "${Made['type']}" is not the one that evolve takes`
      : `nothing takes "${Made['type']}": neither evolve nor another upcaster`
    : Next<Upcasters, Made> extends Upcaster<EventVersion, infer Old, UpcastEvent & EventVersion>
      ? Made['payload'] extends Old
        ? true
        : `the payload made for "${Made['type']}" is not the one that its next upcaster takes`
      : true
  : true

/**
 * A list of upcasters of which each leads to another or to an event of the aggregate; else what is wrong, as a type. What is no
 * tuple is not looked into.
 */
export type CheckedUpcasters<
  Upcasters extends readonly AnyUpcaster[],
  Event extends UpcastEvent,
> = number extends Upcasters['length']
  ? unknown
  : {
      readonly [Index in keyof Upcasters]: Upcasters[Index] extends Upcaster<EventVersion, never, infer Made>
        ? ProblemOf<Fit<Made, Upcasters, Event>>
        : unknown
    }

type ProblemOf<Answer> = [Exclude<Answer, true>] extends [never] ? unknown : { readonly problem: Exclude<Answer, true> }
