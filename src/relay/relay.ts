import { EventEmitter } from 'node:events'
import { messageOf, Service, TrunklineError } from '../core/index.ts'
import type { Change } from '../log/index.ts'
import type { FailedAttempt } from './deliverer.ts'
import type { RelayContext } from './relay-context.ts'
import { checkRelayOptions, type CheckedRelayOptions, type RelayOptions } from './relay-options.ts'
import { RelayRun } from './relay-run.ts'
import type { Delivery } from './sink.ts'

export interface RelayEvents {
  /** The receiver has confirmed it. */
  delivered: [delivery: Delivery]
  /** An attempt failed; another will be made in `delayMs`. */
  retry: [failed: FailedAttempt]
  /** It will not be attempted any more, unless it is redriven. */
  'dead-letter': [failed: FailedAttempt]
  /** The format has no delivery for it. */
  'passed-over': [change: Change]
  /** The slots that this process owns now. */
  slots: [slots: readonly number[]]
  /** Something does not work at present: the sink is out of reach, the database, or the place in the log is lost. */
  error: [error: Error]
}

/**
 * Delivers events and captured changes to a sink: at least once, those of a key in order, many keys side by side. Any number
 * of processes may run a relay of one name; they share its keys (docs/relay.md).
 */
export class Relay extends Service {
  readonly #options: CheckedRelayOptions
  readonly #context: RelayContext
  readonly #emitter = new EventEmitter<RelayEvents>()
  #run: RelayRun | undefined
  #deliveredCount = 0

  /** @throws InvalidInputError `invalid_option`. */
  constructor(context: RelayContext, options: RelayOptions) {
    super()
    this.#context = context
    this.#options = checkRelayOptions(options, context.logger)
    this.#emitter.setMaxListeners(0)
  }

  get name(): string {
    return this.#options.name
  }

  /** The slots of its keys that this process owns at present. */
  get slots(): readonly number[] {
    return this.#run?.slots ?? []
  }

  /** Deliveries confirmed since it was made. */
  get deliveredCount(): number {
    return this.#deliveredCount
  }

  /** Why it reads no further, where only somebody else can mend that; undefined: it does, or will again by itself. */
  get failure(): TrunklineError | undefined {
    return this.#run?.failure
  }

  on<Name extends keyof RelayEvents>(name: Name, listener: (...values: RelayEvents[Name]) => void): this {
    this.#emitter.on(name, listener as never)
    return this
  }

  once<Name extends keyof RelayEvents>(name: Name, listener: (...values: RelayEvents[Name]) => void): this {
    this.#emitter.once(name, listener as never)
    return this
  }

  off<Name extends keyof RelayEvents>(name: Name, listener: (...values: RelayEvents[Name]) => void): this {
    this.#emitter.off(name, listener as never)
    return this
  }

  /**
   * Resolves when all that had committed before the call is delivered, or a dead letter, by this process or another one of
   * the relay's name. What waits for a further attempt is waited for.
   *
   * @param signal gives up waiting: it then resolves with false.
   * @throws the relay's `failure`, when it cannot go on.
   */
  async drained(signal?: AbortSignal): Promise<boolean> {
    const run = this.#run
    if (run === undefined || this.state !== 'running') {
      throw new TrunklineError(`The relay ${this.name} does not run.`, {
        code: 'not_started',
        hint: 'Start it first: await relay.start().',
      })
    }
    return run.drained(signal)
  }

  /** The database is another server now (a fail-over): its connections are made anew, from `config` as it is by then. */
  reconnect(): void {
    this.#run?.reconnect()
  }

  override async stop(): Promise<void> {
    // Its sink may wait for a receiver that is not there.
    if (this.state === 'starting') void this.#options.sink.stop().catch(() => undefined)
    await super.stop()
  }

  protected async onStart(): Promise<void> {
    await this.#context.ready?.()
    this.#run = new RelayRun(this.#context, this.#options, {
      delivered: (delivery) => {
        this.#deliveredCount += 1
        this.#tell('delivered', delivery)
      },
      failed: (failed) => this.#tell(failed.isDead ? 'dead-letter' : 'retry', failed),
      passedOver: (change) => this.#tell('passed-over', change),
      slots: (slots) => this.#tell('slots', slots),
      error: (error) => this.#tell('error', error),
    })
    await this.#run.start()
  }

  protected async onStop(): Promise<void> {
    const run = this.#run
    await run?.stop()
    this.#run = undefined
  }

  /** A listener that throws is logged, and stops nobody. */
  #tell<Name extends keyof RelayEvents>(name: Name, ...values: RelayEvents[Name]): void {
    if (this.#emitter.listenerCount(name) === 0) return
    try {
      this.#emitter.emit(name, ...(values as never))
    } catch (error) {
      this.#context.logger.error(`A listener of "${name}" of the relay ${this.name} threw: ${messageOf(error)}`)
    }
  }
}
