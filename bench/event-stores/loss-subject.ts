import type pg from 'pg'

/** An event as a consumer got it. */
export interface Seen {
  readonly id: string
  readonly stream: string
  readonly version: number
}

/** An event store whose deliveries are counted. */
export interface LossSubject extends AsyncDisposable {
  readonly name: string
  /** Nothing may be lost then. */
  readonly isOwn: boolean
  /** For transactions of the writers' own. */
  readonly pool: pg.Pool
  /** Appends in a transaction of its own, whatever the stream's version is. */
  append(stream: string, count: number): Promise<void>
  /** The same in the transaction that is open on the client. */
  appendIn(client: pg.PoolClient, stream: string, count: number): Promise<void>
  /** Runs an action again as long as it fails for a conflict. */
  retried<Result>(action: () => Promise<Result>): Promise<Result>
  /** Reads everything from the beginning, and on, until it is stopped. */
  follow(onEvent: (seen: Seen) => void): Promise<{ stop(): Promise<void> }>
  storedIds(): Promise<string[]>
}
