import { randomUUID } from 'node:crypto'
import { Socket } from 'node:net'
import type { ClientConfig } from 'pg'
import pgListen, { type Subscriber } from 'pg-listen'
import { backoffMs, type Logger, messageOf, Pause, pause, Service, TrunklineError, withTimeout } from '../core/index.ts'

/** How often the listening connection is asked whether it still answers, in milliseconds; until then polls find what it misses. */
const heartbeatMs = 30_000
/** How long it may take to answer before it counts as dead, in milliseconds. */
const answerMs = 5_000
/** How long the self-test waits for its own notification, in milliseconds. */
const selfTestMs = 2_000
/** Pause before LISTEN is tried again where notifications do not arrive (a pooler), in milliseconds. */
const retryAfterSilenceMs = 60_000

export interface ListenerOptions {
  /** A direct connection: behind a pooler in transaction mode LISTEN succeeds and nothing ever arrives. */
  readonly config: () => ClientConfig
  readonly channel: string
  readonly logger: Logger
  /** Sends a notification over another connection: one sent over the listening one would arrive even through a pooler. */
  readonly notify: (channel: string, payload: string) => Promise<void>
  /** Somebody committed. A hint: may be late, doubled or lost. */
  readonly onNotification: () => void
  /** The connection listens (again): whatever was missed has to be looked up now. */
  readonly onUp: () => void
  /** Nothing arrives until the next onUp. */
  readonly onDown: (error: Error) => void
}

/**
 * The one LISTEN connection of a process, through pg-listen, kept alive for ever. Never fatal: where LISTEN does not work,
 * readers poll.
 *
 * Guards against known defects of pg-listen 1.7.0: its own reconnect is switched off (`retryLimit: 1` means none) and a
 * new subscriber is made instead, because closing one that reconnects leaks a connection and re-LISTEN is not awaited in
 * order; the heartbeat query has a time-out; its `error` event is always heard; a socket that does not close is destroyed.
 */
export class Listener extends Service {
  readonly #options: ListenerOptions
  readonly #pause = new Pause()
  #current: Connection | undefined
  #loop: Promise<void> | undefined
  #stopped = false
  #isUp = false
  #complained = false

  constructor(options: ListenerOptions) {
    super()
    this.#options = options
  }

  /** True while notifications are known to arrive. */
  get isUp(): boolean {
    return this.#isUp
  }

  /** Gives up the present connection for a new one, made as `config` says by then. */
  reconnect(): void {
    this.#current?.fail(new Error('the primary is another server now'))
    this.#pause.wake()
  }

  /** Resolves after the first attempt, whether it worked or not. */
  protected async onStart(): Promise<void> {
    this.#stopped = false
    const first = Promise.withResolvers<void>()
    this.#loop = this.#run(() => first.resolve())
    await first.promise
  }

  protected async onStop(): Promise<void> {
    this.#stopped = true
    this.#pause.wake()
    this.#current?.fail(new Error('the listener was stopped'))
    await this.#loop
    this.#isUp = false
  }

  async #run(onFirst: () => void): Promise<void> {
    for (let attempt = 1; !this.#isStopped(); attempt += 1) {
      const connection = new Connection(this.#options)
      this.#current = connection
      let waitMs: number
      try {
        await connection.open()
        attempt = 0
        this.#isUp = true
        this.#complained = false
        onFirst()
        this.#options.onUp()
        throw await connection.failure
      } catch (error) {
        waitMs = error instanceof SilenceError ? retryAfterSilenceMs : backoffMs(attempt + 1)
        this.#report(error instanceof Error ? error : new Error(messageOf(error)), this.#isUp)
      } finally {
        this.#isUp = false
        await connection.close()
        onFirst()
      }
      if (!this.#isStopped()) await this.#pause.wait(waitMs)
    }
  }

  #isStopped(): boolean {
    return this.#stopped
  }

  #report(error: Error, wasUp: boolean): void {
    if (this.#stopped) return
    this.#options.onDown(error)
    // pg-listen speaks of its own reconnect, which is switched off; what happened is that the connection broke.
    if (wasUp) this.#options.logger.info('The LISTEN connection broke; polling until it is back.')
    if (wasUp || this.#complained) return
    this.#complained = true
    this.#options.logger.warn(`LISTEN does not work, polling instead: ${error.message}`)
  }
}

/** LISTEN was accepted and nothing arrived. */
class SilenceError extends TrunklineError {
  constructor() {
    super('a notification sent to ourselves did not arrive.', {
      code: 'listen_silent',
      retryable: true,
      hint: 'A pooler in transaction mode stands in between? Give a direct connection as listenUrl.',
    })
  }
}

/** One subscriber of pg-listen, used once. */
class Connection {
  readonly #options: ListenerOptions
  readonly #socket = new Socket()
  readonly #subscriber: Subscriber<Record<string, string>>
  readonly #tests = new Map<string, () => void>()
  readonly #failure = Promise.withResolvers<Error>()

  constructor(options: ListenerOptions) {
    this.#options = options
    this.#subscriber = pgListen.default(
      {
        ...options.config(),
        application_name: 'trunkline listen',
        query_timeout: answerMs,
        stream: () => this.#socket,
      },
      {
        retryLimit: 1,
        retryTimeout: 0,
        paranoidChecking: heartbeatMs,
        parse: (payload) => payload,
        serialize: (payload) => payload as string,
      },
    )
    this.#subscriber.events.on('error', (error) => this.fail(error))
    this.#subscriber.events.on('notification', ({ payload }) => this.#receive(payload as string | undefined))
  }

  /** Resolves with the reason when the connection no longer listens. */
  get failure(): Promise<Error> {
    return this.#failure.promise
  }

  fail(error: Error): void {
    this.#failure.resolve(error)
  }

  async open(): Promise<void> {
    await this.#orFailure(this.#subscriber.connect(), 'connecting to LISTEN')
    await this.#orFailure(Promise.resolve(this.#subscriber.listenTo(this.#options.channel)), 'LISTEN')
    await this.#selfTest()
  }

  async close(): Promise<void> {
    this.fail(new Error('closed'))
    const ended = this.#subscriber.close().catch(() => undefined)
    await Promise.race([ended, pause(500)])
    this.#socket.destroy()
  }

  #receive(payload: string | undefined): void {
    // Wake-ups are empty. Anything else is somebody's self-test.
    if (payload === undefined || payload === '') this.#options.onNotification()
    else this.#tests.get(payload)?.()
  }

  async #selfTest(): Promise<void> {
    const token = randomUUID()
    const arrived = new Promise<void>((resolve) => this.#tests.set(token, resolve))
    await this.#orFailure(this.#options.notify(this.#options.channel, token), 'the self-test of LISTEN')
    // A connection that breaks meanwhile is no silence, after which LISTEN is not tried again for long.
    await withTimeout(Promise.race([arrived, this.#untilBroken()]), selfTestMs, () => new SilenceError())
    this.#tests.delete(token)
  }

  async #orFailure<Value>(promise: Promise<Value>, doing: string): Promise<Value> {
    promise.catch(() => undefined)
    return withTimeout(
      Promise.race([promise, this.#untilBroken()]),
      2 * answerMs,
      () => new Error(`${doing} took longer than ${2 * answerMs} ms`),
    )
  }

  /** Rejects when the connection no longer listens. */
  async #untilBroken(): Promise<never> {
    throw await this.#failure.promise
  }
}
