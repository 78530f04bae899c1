import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TrunklineError, withTimeout } from '../../core/index.ts'
import { type Answers, type CopyFigures, type Message, type Question, type Request, type Seen } from './messages.ts'

/** How long an instance may take to answer, or to come up, in milliseconds. */
const answerTimeoutMs = 180_000
/** How long it may take to end by itself, in milliseconds. */
const stopTimeoutMs = 5_000

/** What an instance connects to. */
export interface Database {
  readonly url: string
  readonly schema: string
}

export interface InstanceProcessListener {
  seen(seen: Seen): void
  warning(text: string): void
}

/** Compiled, it has another suffix. */
const instanceFile = new URL('./instance.ts', import.meta.url)

interface Pending {
  readonly resolve: (answer: never) => void
  readonly reject: (error: Error) => void
}

/** The main process's end of one instance. It runs from src/ as from dist/: the file beside this one, with its suffix. */
export class InstanceProcess {
  readonly pid: number
  /** Resolves when all tables are copied; rejects when it ended or failed before. */
  readonly ready: Promise<CopyFigures>
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #listener: InstanceProcessListener
  readonly #ready = Promise.withResolvers<CopyFigures>()
  readonly #pending = new Map<number, Pending>()
  #isReady = false
  #lastId = 0

  constructor({ url, schema }: Database, listener: InstanceProcessListener) {
    this.#listener = listener
    const file = fileURLToPath(instanceFile).replace(/\.ts$/, extname(import.meta.filename))
    this.#child = fork(file, [], {
      env: { ...process.env, DATABASE_URL: url, TRUNKLINE_SCHEMA: schema },
      execArgv: [...process.execArgv, '--expose-gc'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    this.pid = this.#child.pid ?? 0
    this.#ended = once(this.#child, 'exit')
    this.ready = withDeadline(this.#ready.promise, 'did not come up')
    this.ready.catch(() => undefined)
    this.#child.on('message', (message) => this.#receive(message as Message))
    this.#child.on('error', (error) => this.#fail(error))
    this.#child.on('exit', (code, signal) => this.#fail(new Error(`it ended with ${signal ?? `exit code ${code}`}`)))
  }

  async ask<Asked extends Question>(question: Asked): Promise<Answers[Asked['ask']]> {
    this.#lastId += 1
    const id = this.#lastId
    const answer = new Promise<Answers[Asked['ask']]>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      const request: Request = { ...question, id }
      this.#child.send(request, (error) => {
        if (error !== null) reject(error)
      })
    })
    return withDeadline(answer, `did not answer "${question.ask}"`).finally(() => this.#pending.delete(id))
  }

  /** SIGKILL: no farewell of any kind. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Asks it to end, and insists after a while. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    // While it copies it does not listen to us.
    if (!this.#isReady) return this.kill()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopTimeoutMs)
    await this.ask({ ask: 'stop' }).catch(() => this.#child.kill('SIGKILL'))
    await this.#ended
    clearTimeout(timer)
  }

  #receive(message: Message): void {
    switch (message.tell) {
      case 'ready':
        this.#isReady = true
        return this.#ready.resolve(message.copy)
      case 'seen':
        return this.#listener.seen(message)
      case 'warning':
        return this.#listener.warning(message.text)
      case 'answer':
        return this.#pending.get(message.id)?.resolve(message.answer as never)
      case 'failure': {
        const error = new Error(message.text)
        if (message.id === undefined) return this.#ready.reject(error)
        return this.#pending.get(message.id)?.reject(error)
      }
    }
  }

  #fail(error: Error): void {
    this.#ready.reject(error)
    for (const { reject } of this.#pending.values()) reject(error)
  }
}

async function withDeadline<Value>(promise: Promise<Value>, what: string): Promise<Value> {
  return withTimeout(promise, answerTimeoutMs, () => {
    return new TrunklineError(`An instance ${what} within ${answerTimeoutMs} ms.`, { code: 'instance_silent' })
  })
}
