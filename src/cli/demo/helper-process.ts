import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TrunklineError, withTimeout } from '../../core/index.ts'

/** How long it may take to come up, in milliseconds. */
const readyTimeoutMs = 180_000
/** How long it may take to end by itself, in milliseconds. */
const stopTimeoutMs = 5_000

export interface HelperOptions<Told> {
  /** For messages. */
  readonly what: string
  /** Its source file: compiled it has another suffix. */
  readonly file: URL
  readonly env: Readonly<Record<string, string>>
  readonly onTold: (told: Told) => void
  /** It ended, and nobody had asked it to. */
  readonly onDied: (how: string) => void
}

/** A process of the demo that is no instance. It says `ready` when it is, and ends when the channel to it is closed. */
export class HelperProcess<Told extends { readonly tell: string }> {
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #ready = Promise.withResolvers<Told>()
  #isWanted = true

  constructor({ what, file, env, onTold, onDied }: HelperOptions<Told>) {
    this.#child = fork(fileURLToPath(file).replace(/\.ts$/, extname(import.meta.filename)), [], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    this.#ended = once(this.#child, 'exit')
    this.#ready.promise.catch(() => undefined)
    this.#child.on('message', (message) => {
      const told = message as Told
      if (told.tell === 'ready') this.#ready.resolve(told)
      else onTold(told)
    })
    this.#child.on('error', (error) => this.#ready.reject(error))
    this.#child.on('exit', (code, signal) => {
      const how = signal ?? `exit code ${code}`
      this.#ready.reject(new TrunklineError(`${what} ended with ${how}.`, { code: 'helper_failed' }))
      if (this.#isWanted) onDied(how)
    })
  }

  /** What it said when it came up. */
  async ready(): Promise<Told> {
    return withTimeout(this.#ready.promise, readyTimeoutMs, () => {
      return new TrunklineError(`A process of the demo did not come up within ${readyTimeoutMs} ms.`, {
        code: 'helper_failed',
      })
    })
  }

  /** SIGKILL: no farewell of any kind. */
  async kill(): Promise<void> {
    this.#isWanted = false
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Asks it to end, and insists after a while. */
  async stop(): Promise<void> {
    this.#isWanted = false
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopTimeoutMs)
    if (this.#child.connected) this.#child.disconnect()
    await this.#ended
    clearTimeout(timer)
  }
}
