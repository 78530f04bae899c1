import type { RecordedEvent } from './event.ts'

export interface EventPage {
  readonly events: readonly RecordedEvent[]
  /** Nothing comes after it. */
  readonly isLast: boolean
}

/** Gives the next page, of at most so many events. */
export type FetchPage = (rowsMax: number) => Promise<EventPage>

/** Events of the first page that `for await` reads: the first event should not wait for many. */
const firstPageRows = 200
/** Events of a page at most. */
const pageRowsMax = 2_000

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
    if (first.events.length > 0) yield first.events
    // Whoever wants more than the first page is likely to want all: the next one is on its way while he works on this one.
    let coming = first.isLast ? undefined : fetch(pageRowsMax)
    while (coming !== undefined) {
      const page = await coming
      coming = page.isLast ? undefined : fetch(pageRowsMax)
      // Its error is told when it is that page's turn, and to nobody if he stops before.
      coming?.catch(() => undefined)
      if (page.events.length > 0) yield page.events
    }
  }

  async #all(): Promise<RecordedEvent[]> {
    const fetch = this.#open()
    const all: RecordedEvent[] = []
    for (;;) {
      const { events, isLast } = await fetch(pageRowsMax)
      for (const event of events) all.push(event)
      if (isLast) return all
    }
  }
}
