/** Where a service is in its life. */
export type ServiceState = 'idle' | 'starting' | 'running' | 'stopping'

/**
 * The one start and stop discipline of every long-lived thing: start twice is harmless, stop waits until all is
 * released, stop before start and stop twice are harmless, calls in flight are shared, a stopped service can be started
 * again, and `await using` works.
 */
export abstract class Service implements AsyncDisposable {
  #state: ServiceState = 'idle'
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined

  get state(): ServiceState {
    return this.#state
  }

  /** Resolves when the service runs. A failed start releases what it had taken, and may be tried again. */
  async start(): Promise<void> {
    if (this.#stopping !== undefined) await this.#stopping
    this.#starting ??= this.#runStart()
    await this.#starting
  }

  /** Resolves when all is released. Waits for a start under way. */
  async stop(): Promise<void> {
    if (this.#stopping === undefined) {
      if (this.#starting === undefined) return
      this.#stopping = this.#runStop(this.#starting)
    }
    await this.#stopping
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #runStart(): Promise<void> {
    this.#state = 'starting'
    try {
      await this.onStart()
      this.#state = 'running'
    } catch (error) {
      await this.onStop().catch(() => undefined)
      this.#state = 'idle'
      this.#starting = undefined
      throw error
    }
  }

  async #runStop(starting: Promise<void>): Promise<void> {
    try {
      await starting
      this.#state = 'stopping'
      await this.onStop()
    } catch {
      // A failed start has cleaned up after itself.
    } finally {
      this.#state = 'idle'
      this.#starting = undefined
      this.#stopping = undefined
    }
  }

  /** Takes what the service needs; what it throws is the result of `start`. */
  protected abstract onStart(): Promise<void>

  /** Releases all that `onStart` took, also after it failed half-way. */
  protected abstract onStop(): Promise<void>
}
