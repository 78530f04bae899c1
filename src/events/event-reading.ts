import { setImmediate } from 'node:timers/promises'
import type { RecordedEvent } from './event.ts'

export interface EventPage {
  /** Makes the events of what was fetched: that takes as long as fetching, and the next page can be on its way meanwhile. */
  readonly read: () => readonly RecordedEvent[] | Promise<readonly RecordedEvent[]>
  /** Nothing comes after it. */
  readonly isLast: boolean
}

/** Gives the next page, of at most so many events. */
export type FetchPage = (rowsMax: number) => Promise<EventPage>

/** Events of the first page that `for await` reads: the first event should not wait for many. */
const firstPageRows = 200
/** Events of a page at most: the server makes one while the one before is worked on. */
const pageRowsMax = 500

/**
 * Events that are being read: `await` gives all of them in a list, `for await` reads page after page and holds one at a time.
 * Nothing is read before either; each of them reads anew.
 */
export class EventReading implements PromiseLike<RecordedEvent[]>, AsyncIterable<RecordedEvent> {
  readonly #open: () => FetchPage

  constructor(open: () => FetchPage) {
    this.#open = open
  }

  // oxlint-disable-next-line unicorn/no-thenable -- to be awaited is what it is for
  then<Result = RecordedEvent[], Failure = never>(
    onFulfilled?: ((events: RecordedEvent[]) => Result | PromiseLike<Result>) | null,
    onRejected?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    return this.#all().then(onFulfilled, onRejected)
  }

  async *[Symbol.asyncIterator](): AsyncIterator<RecordedEvent> {
    for await (const page of this.pages()) yield* page
  }

  /** The same in lists, as they come. */
  async *pages(): AsyncIterableIterator<readonly RecordedEvent[]> {
    const fetch = this.#open()
    const first = await fetch(firstPageRows)
    const events = await first.read()
    if (events.length > 0) yield events
    // Whoever wants more than the first page is likely to want all.
    if (!first.isLast) yield* this.#rest(fetch)
  }

  /** One page is on its way while the one before it is worked on. */
  async *#rest(fetch: FetchPage): AsyncIterableIterator<readonly RecordedEvent[]> {
    let coming: Promise<EventPage> | undefined = fetch(pageRowsMax)
    while (coming !== undefined) {
      const page: EventPage = await coming
      coming = page.isLast ? undefined : fetch(pageRowsMax)
      // Its error is told when it is that page's turn, and to nobody if he stops before.
      coming?.catch(() => undefined)
      // The driver sends it in a later turn.
      if (coming !== undefined) await setImmediate()
      const events = await page.read()
      if (events.length > 0) yield events
    }
  }

  async #all(): Promise<RecordedEvent[]> {
    const all: RecordedEvent[] = []
    for await (const events of this.#rest(this.#open())) for (const event of events) all.push(event)
    return all
  }
}
