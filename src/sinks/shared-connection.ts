import { TrunklineError } from '../core/index.ts'
import { DeliveryError } from '../relay/index.ts'
import type { Deadline } from './deadline.ts'
import type { Secrets } from './secrets.ts'

export interface SharedConnectionOptions<Session> {
  readonly sinkName: string
  readonly secrets: Secrets
  /** Connects; settles by itself, within the client's own time limit. */
  readonly open: () => Promise<Session>
  /** Ends a session at once, without waiting for its peer. Never sends what is still buffered. */
  readonly close: (session: Session) => Promise<void> | void
}

/**
 * One connection to a broker: opened when it is needed, shared by all calls, and thrown away at the first doubt (an error
 * that is no clear answer, a time limit that ran out). So nothing that a caller has given up is sent later, behind the
 * back of its repetition, and a new connection owes nothing to the old one.
 */
export class SharedConnection<Session> {
  readonly #options: SharedConnectionOptions<Session>
  #opening: Promise<Session> | undefined

  constructor(options: SharedConnectionOptions<Session>) {
    this.#options = options
  }

  /**
   * Does something with the session.
   *
   * @param action throws a DeliveryError where the broker has answered; anything else means that the connection is in doubt.
   */
  async use<Value>(deadline: Deadline, action: (session: Session) => Promise<Value>): Promise<Value> {
    const opening = (this.#opening ??= this.#options.open())
    try {
      const session = await deadline.race(opening)
      return await deadline.race(action(session))
    } catch (error) {
      if (deadline.signal.aborted || !(error instanceof DeliveryError)) this.#discard(opening)
      throw this.#describe(error)
    }
  }

  /** Throws the present session away, if it is this one. */
  discard(session: Session): void {
    const opening = this.#opening
    void opening?.then((present) => {
      if (present === session) this.#discard(opening)
    }, ignore)
  }

  async close(): Promise<void> {
    const opening = this.#opening
    this.#opening = undefined
    if (opening !== undefined) await this.#closeWhenOpen(opening)
  }

  #discard(opening: Promise<Session>): void {
    if (this.#opening === opening) this.#opening = undefined
    void this.#closeWhenOpen(opening)
  }

  async #closeWhenOpen(opening: Promise<Session>): Promise<void> {
    try {
      await this.#options.close(await opening)
    } catch {
      // It was not opened, or is broken already; either way nothing is held.
    }
  }

  #describe(error: unknown): TrunklineError {
    if (error instanceof TrunklineError) return error
    const { sinkName, secrets } = this.#options
    return new DeliveryError(`${sinkName}: the connection failed: ${secrets.messageOf(error).replace(/\.$/, '')}.`, {
      code: 'connection_failed',
      retryable: true,
      hint: 'Look whether the broker runs, listens there, and knows these credentials.',
      cause: secrets.causeOf(error),
    })
  }
}

function ignore(): void {
  // Whoever uses the session hears of it.
}
