import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type EmbeddedPostgresVersion } from './binaries.ts'
import {
  type ConnectionUrlOptions,
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  type StopMode,
} from './contract.ts'
import { EmbeddedPostgresError } from './error.ts'
import { freePort } from './free-port.ts'
import { type OrphanGuard, guardServer } from './orphan-guard.ts'
import { type Preparation } from './preparation.ts'
import { processOptions } from './server-account.ts'

const STOP_SIGNAL = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const
const READY_POLL_INTERVAL_MS = 10
const PORT_ATTEMPTS_MAX = 5
const LOG_TAIL_LINES = 15

/** A server that is up: its process, and the guard that ends it when we are gone. */
interface RunningServer {
  readonly child: ChildProcess
  readonly pid: number
  readonly ended: Promise<unknown>
  readonly guard: OrphanGuard
}

/** The only implementation of the contract. */
export class Server implements EmbeddedPostgres {
  readonly version: EmbeddedPostgresVersion
  readonly dataDirectory: string
  readonly logFile: string
  readonly #options: EmbeddedPostgresOptions
  readonly #preparation: Preparation
  readonly #timeoutMs: number
  #port: number
  #running: RunningServer | undefined
  #lastCall: Promise<void> = Promise.resolve()

  constructor(options: EmbeddedPostgresOptions, preparation: Preparation) {
    this.version = options.version
    this.dataDirectory = preparation.dataDirectory
    this.logFile = join(preparation.home, 'server.log')
    this.#options = options
    this.#preparation = preparation
    this.#timeoutMs = options.timeoutMs ?? 60_000
    this.#port = preparation.port
  }

  get port(): number {
    return this.#port
  }

  get pid(): number | undefined {
    return this.#running?.pid
  }

  get url(): string {
    return this.urlFor({})
  }

  urlFor({ database = 'postgres', user, password }: ConnectionUrlOptions): string {
    const name = encodeURIComponent(user ?? this.#options.superuser ?? 'postgres')
    const secret = password === undefined ? '' : `:${encodeURIComponent(password)}`
    return `postgres://${name}${secret}@127.0.0.1:${this.port}/${encodeURIComponent(database)}`
  }

  start(): Promise<void> {
    return this.#inTurn(() => this.#startNow())
  }

  stop(mode: StopMode = 'fast'): Promise<void> {
    return this.#inTurn(() => this.#stopNow(mode))
  }

  restart(mode: StopMode = 'fast'): Promise<void> {
    return this.#inTurn(async () => {
      await this.#stopNow(mode)
      await this.#startNow()
    })
  }

  dispose(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#stopNow(this.#isTemporary() ? 'immediate' : 'fast')
      await rm(this.#preparation.home, { recursive: true, force: true })
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }

  /** Calls never overlap: a stop that arrives during a start waits for it. */
  #inTurn(call: () => Promise<void>): Promise<void> {
    const result = this.#lastCall.then(call)
    this.#lastCall = result.catch(() => {})
    return result
  }

  #isTemporary(): boolean {
    return this.#options.dataDirectory === undefined
  }

  /** Between the choice of a port and the server's bind another process can take it: then another port is drawn. */
  async #startNow(): Promise<void> {
    if (this.#running !== undefined) return
    for (let attempt = 1; ; attempt += 1) {
      const logStart = await fileSize(this.logFile)
      const failure = await this.#launch()
      if (failure === undefined) return
      const log = (await readFile(this.logFile, 'utf8')).slice(logStart)
      const portTaken = log.includes('Address already in use') || log.includes('could not bind')
      if (!portTaken || this.#options.port !== undefined || attempt === PORT_ATTEMPTS_MAX) {
        throw this.#startFailed(failure, log)
      }
      this.#port = await freePort()
    }
  }

  /** Resolves to nothing when the server is ready, else to what went wrong. */
  async #launch(): Promise<string | undefined> {
    const child = await this.#spawnServer()
    if (child.pid === undefined) return 'it could not be executed'
    const ended = once(child, 'exit')
    const guard = guardServer(child.pid, ...this.#guardOrders())
    const failure = await this.#untilReady(child)
    if (failure !== undefined) {
      child.kill('SIGQUIT')
      await ended
      guard.dismiss()
      return failure
    }
    child.unref()
    const running: RunningServer = { child, pid: child.pid, ended, guard }
    this.#running = running
    void ended.then(() => this.#forget(running))
    return undefined
  }

  async #spawnServer(): Promise<ChildProcess> {
    const { account, binaries, home } = this.#preparation
    const log = await open(this.logFile, 'a')
    try {
      const listen = ['-p', String(this.port), '-c', 'listen_addresses=127.0.0.1', '-k', home]
      const child = spawn(binaries.postgres, ['-D', this.dataDirectory, ...listen], {
        ...processOptions(account),
        stdio: ['ignore', log.fd, log.fd],
        detached: true,
      })
      child.on('error', () => {})
      return child
    } finally {
      await log.close()
    }
  }

  #guardOrders(): ['INT' | 'QUIT', string | undefined] {
    return this.#isTemporary() ? ['QUIT', this.#preparation.home] : ['INT', undefined]
  }

  /** The postmaster writes its state into the eighth line of postmaster.pid (since PostgreSQL 10). */
  async #untilReady(child: ChildProcess): Promise<string | undefined> {
    const deadline = performance.now() + this.#timeoutMs
    while (performance.now() < deadline) {
      if (child.exitCode !== null || child.signalCode !== null) return 'it ended before it was ready'
      const text = await readFile(join(this.dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')
      const lines = text.split('\n')
      const isReady = ['ready', 'standby'].includes((lines[7] ?? '').trim())
      if (Number(lines[0]) === child.pid && isReady) return undefined
      await delay(READY_POLL_INTERVAL_MS)
    }
    return `it was not ready after ${this.#timeoutMs} ms`
  }

  #forget(running: RunningServer): void {
    running.guard.dismiss()
    if (this.#running === running) this.#running = undefined
  }

  async #stopNow(mode: StopMode): Promise<void> {
    const running = this.#running
    if (running === undefined) return
    running.child.ref()
    running.child.kill(STOP_SIGNAL[mode])
    const tooLate = AbortSignal.timeout(this.#timeoutMs)
    const hasEnded = await Promise.race([running.ended.then(() => true), once(tooLate, 'abort').then(() => false)])
    if (!hasEnded) throw this.#stopFailed(mode)
    this.#forget(running)
  }

  #startFailed(failure: string, log: string): EmbeddedPostgresError {
    const tail = log.trim().split('\n').slice(-LOG_TAIL_LINES).join('\n')
    return new EmbeddedPostgresError(
      'embedded_postgres_start_failed',
      `PostgreSQL ${this.version} did not start on port ${this.port} with data in ${this.dataDirectory}: ${failure}. ` +
        `The end of its log:\n${tail}`,
    )
  }

  #stopFailed(mode: StopMode): EmbeddedPostgresError {
    return new EmbeddedPostgresError(
      'embedded_postgres_stop_failed',
      `PostgreSQL ${this.version} (process ${this.pid}) did not end within ${this.#timeoutMs} ms after a ${mode} stop. ` +
        "Disconnect its clients, or stop it with mode 'immediate'.",
    )
  }
}

async function fileSize(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}
