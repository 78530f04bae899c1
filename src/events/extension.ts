import type { Queryable } from '../postgres/index.ts'
import type { NewEvent, RecordedEvent } from './event.ts'

/** What looks at events on their way in and out: validation, encryption, upcasting, inline projections. */
export interface EventExtension {
  /**
   * Events of one append, as they are to be written in place of those given. `tx`: the caller's transaction, or that of the append
   * where there is one; else a pool. What it throws ends the append; nothing is written.
   */
  beforeWrite?(
    events: readonly NewEvent[],
    stream: string,
    tx: Queryable,
  ): readonly NewEvent[] | Promise<readonly NewEvent[]>
  /** A page of events, as they are to be given in place of those read: other ones, more or fewer. */
  afterRead?(
    events: readonly RecordedEvent[],
    tx?: Queryable,
  ): readonly RecordedEvent[] | Promise<readonly RecordedEvent[]>
  /** False: `inTransaction` has nothing to do for these events, and they need no transaction for its sake. Default true. */
  isWanted?(stream: string, events: readonly NewEvent[]): boolean
  /** In the transaction of an append, after it. What it throws ends the transaction. Not called for a repeated append. */
  inTransaction?(tx: Queryable, recorded: readonly RecordedEvent[]): Promise<void>
}
