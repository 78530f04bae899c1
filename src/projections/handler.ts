import type { QueryResultRow } from 'pg'
import type { RecordedEvent } from '../events/index.ts'
import type { Queryable } from '../postgres/index.ts'

/** An event that a projection handles, by its type. */
export interface ProjectedEvent<Type extends string = string, Payload = unknown> {
  readonly type: Type
  readonly payload: Payload
}

/** What a handler works with. It is good until the handler's transaction ends. */
export interface HandlerContext {
  /** Runs a statement in the transaction that the checkpoint is moved in; inline: in that of the append. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as pg has it: who asks knows the rows
  readonly query: <Row extends QueryResultRow = QueryResultRow>(
    text: string,
    values?: unknown[],
  ) => Promise<{ rows: Row[] }>
  /** The same for whatever takes a connection: `trunkline.emit(tx, …)`. Never COMMIT or ROLLBACK in it. */
  readonly tx: Queryable
  /**
   * A table of the read model, as SQL writes it: the live one, or the one that is being built. By the name it was declared with.
   *
   * @throws InvalidInputError `unknown_table`.
   */
  readonly table: (name: string) => string
  /** The event was there before this build of the read model served: leave out what is done only once, as sending mail. */
  readonly isReplay: boolean
  readonly projection: string
  /** Of the handlers. */
  readonly version: number
  /** Aborted when the handler's time is over, and when the projection stops. */
  readonly signal: AbortSignal
}

/** Makes rows of one event. What it throws ends the transaction. */
export type ProjectionHandler<Event> = (event: Event, context: HandlerContext) => unknown

/** A handler for each type of event; events of other types are passed over. */
export type ProjectionHandlers<Event extends ProjectedEvent> = {
  readonly [Type in Event['type']]?:
    | ProjectionHandler<RecordedEvent<Type, Extract<Event, { readonly type: Type }>['payload']>>
    | undefined
}
