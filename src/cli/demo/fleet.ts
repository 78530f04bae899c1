import { TrunklineError, messageOf } from '../../core/index.ts'
import { type Database, InstanceProcess } from './instance-process.ts'
import { type CopyFigures, type InstanceStatus } from './messages.ts'
import { type Visibility, type Witness } from './visibility.ts'

/** One instance, which stays the same over its processes. */
export interface Instance extends Witness {
  readonly process: InstanceProcess
}

export interface FleetListener {
  ready(instance: number, pid: number, copy: CopyFigures, isRestart: boolean): void
  killed(instance: number, pid: number): void
  warning(instance: number, text: string): void
}

/** The instances of the demo: each in a process of its own, numbered from 1. */
export class Fleet {
  readonly #database: () => Database
  readonly #visibility: Visibility
  readonly #listener: FleetListener
  readonly #all = new Map<number, Instance>()
  readonly #ready = new Set<Instance>()

  constructor(database: () => Database, visibility: Visibility, listener: FleetListener) {
    this.#database = database
    this.#visibility = visibility
    this.#listener = listener
  }

  /** Those that have their tables, by number. */
  get running(): readonly Instance[] {
    return [...this.#ready].toSorted((left, right) => left.instance - right.instance)
  }

  /** Starts instances 1 to `count`, all at once. */
  async start(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, (_, place) => this.#launch(place + 1, false)))
  }

  /** Starts an instance that was killed; resolves when it has its tables. */
  async restart(instance: number): Promise<void> {
    await this.#launch(instance, true)
  }

  async kill(instance: number): Promise<void> {
    const killed = this.#all.get(instance)
    if (killed === undefined) return
    this.#all.delete(instance)
    this.#ready.delete(killed)
    await killed.process.kill()
    this.#listener.killed(instance, killed.pid)
  }

  async status(): Promise<readonly InstanceStatus[]> {
    return Promise.all(this.running.map(({ process }) => process.ask({ ask: 'status' })))
  }

  /** Ends all of them; harmless when there are none. */
  async stop(): Promise<void> {
    const all = [...this.#all.values()]
    this.#all.clear()
    this.#ready.clear()
    await Promise.all(all.map(({ process }) => process.stop()))
  }

  async #launch(instance: number, isRestart: boolean): Promise<void> {
    const process = new InstanceProcess(this.#database(), {
      seen: (seen) => this.#visibility.record({ instance, pid: process.pid }, seen),
      warning: (text) => this.#listener.warning(instance, text),
    })
    const launched: Instance = { instance, pid: process.pid, process }
    this.#all.set(instance, launched)
    try {
      const copy = await process.ready
      this.#ready.add(launched)
      this.#listener.ready(instance, process.pid, copy, isRestart)
    } catch (error) {
      throw new TrunklineError(`Instance ${instance} failed: ${messageOf(error)}`, {
        code: 'instance_failed',
        cause: error,
      })
    }
  }
}
