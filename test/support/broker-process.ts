import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants, accessSync } from 'node:fs'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { type OrphanGuard, guardServer } from '../../src/testing/embedded/orphan-guard.ts'
import { eventually } from './eventually.ts'

/** A server that a test starts, stops and starts again on the same port, with the same data. */
export interface BrokerProcess extends AsyncDisposable {
  readonly port: number
  start(): Promise<void>
  stop(): Promise<void>
  /** Stops it for good and removes its data. */
  dispose(): Promise<void>
}

export interface BrokerProcessOptions {
  /** For messages: `Redis`. */
  readonly what: string
  readonly program: string
  readonly port: number
  /** Arguments; `home` is a directory of its own that survives restarts. */
  readonly args: (home: string) => readonly string[]
  readonly env?: ((home: string) => Readonly<Record<string, string>>) | undefined
  /** Writes what it needs into its home, before the first start. */
  readonly prepare?: ((home: string) => Promise<void>) | undefined
  /** Beyond "the port accepts": holds when the server answers. */
  readonly isReady?: (() => Promise<boolean>) | undefined
  readonly readyTimeoutMs?: number | undefined
}

/** Starts a server; it neither keeps this process alive nor outlives it. */
export async function startBroker(options: BrokerProcessOptions): Promise<BrokerProcess> {
  const home = await mkdtemp(join(tmpdir(), `trunkline-${options.what.toLowerCase()}-`))
  await options.prepare?.(home)
  const broker = new Broker(options, home)
  try {
    await broker.start()
    return broker
  } catch (error) {
    await broker.dispose()
    throw error
  }
}

/** The path of a program, also where servers are installed. */
export function findProgram(name: string): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return directories.map((directory) => join(directory, name)).find(isExecutable)
}

/** True when something listens there. */
export function accepts(port: number, host = '127.0.0.1'): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect({ port, host })
  socket.once('connect', () => resolve(true))
  socket.once('error', () => resolve(false))
  return promise.finally(() => socket.destroy())
}

class Broker implements BrokerProcess {
  readonly port: number
  readonly #options: BrokerProcessOptions
  readonly #home: string
  #child: ChildProcess | undefined
  #guard: OrphanGuard | undefined

  constructor(options: BrokerProcessOptions, home: string) {
    this.port = options.port
    this.#options = options
    this.#home = home
  }

  async start(): Promise<void> {
    if (this.#child !== undefined) return
    const { what, program, args, env, isReady, readyTimeoutMs = 60_000 } = this.#options
    const logFile = join(this.#home, 'test.log')
    const log = await open(logFile, 'a')
    const child = spawn(program, args(this.#home), {
      cwd: this.#home,
      env: { ...process.env, ...env?.(this.#home) },
      stdio: ['ignore', log.fd, log.fd],
      detached: true,
    })
    this.#child = child
    await once(child, 'spawn')
    await log.close()
    this.#guard = guardServer(child.pid ?? 0, 'INT', this.#home)
    const answers = async (): Promise<boolean> =>
      child.exitCode !== null || ((await accepts(this.port)) && (isReady === undefined || (await isReady())))
    await eventually(answers, { timeoutMs: readyTimeoutMs, intervalMs: 50, what: `${what} answers on ${this.port}` })
    if (child.exitCode !== null) throw new Error(`${what} ended at once: ${await readFile(logFile, 'utf8')}`)
    child.unref()
  }

  async stop(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    this.#guard?.dismiss()
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.ref()
    const ended = once(child, 'exit')
    child.kill('SIGTERM')
    await ended
  }

  async dispose(): Promise<void> {
    await this.stop()
    await rm(this.#home, { recursive: true, force: true })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
