import { randomUUID } from 'node:crypto'
import { backoffMs, messageOf, Pause } from '../core/index.ts'
import { PartitionWorker } from './partition-worker.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import type { Beat, Build, Member, TakenPartition } from './projection-store.ts'

/** Longest pause between two heartbeats, in milliseconds. */
const beatIntervalMaxMs = 1_000

export interface BuildRunOptions {
  readonly context: ProjectionContext
  readonly definition: Definition
  readonly build: Build
  /** As whom it has joined already. */
  readonly owner?: string | undefined
  /** Something happened that whoever waits for it should look at: it is near the end, has moved, ended. */
  readonly onChange?: () => void
}

/**
 * Works on a build as one of its members: renews the lease, takes partitions that nobody has, gives back what is too much, and runs a
 * worker for each. That two processes believe to own one partition for a moment is harmless: see P4 of docs/projections.md.
 */
export class BuildRun {
  readonly #options: BuildRunOptions
  readonly #pause = new Pause()
  readonly #workers = new Map<number, PartitionWorker>()
  readonly #near = new Set<number>()
  #owner: string
  #isStopping = false
  #running: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined
  #state: 'working' | 'ended' = 'working'

  constructor(options: BuildRunOptions) {
    this.#options = options
    this.#owner = options.owner ?? randomUUID()
  }

  /** `ended`: there is no such build any more, or it is in another state than it was. */
  get state(): 'working' | 'ended' {
    return this.#state
  }

  /** An event does not go through, and the build is given up. */
  get failure(): { readonly error: unknown } | undefined {
    return this.#failure
  }

  /** All partitions of this process are near the end of all events. */
  get isNear(): boolean {
    return [...this.#workers.keys()].every((partition) => this.#near.has(partition))
  }

  get #member(): Member {
    const { definition, build } = this.#options
    return { projection: definition.name, build: build.build, owner: this.#owner }
  }

  /** Resolves when it is a member and has taken its first partitions. @throws what the database says. */
  async start(): Promise<void> {
    const { context, definition, owner } = this.#options
    if (owner === undefined && !(await context.store.join(this.#member, definition.leaseMs))) {
      this.#end()
      return
    }
    await this.#beat()
    this.#running = this.#run()
  }

  /** Ends what is begun and gives all back. */
  async stop(): Promise<void> {
    if (this.#isStopping) return this.#running
    this.#isStopping = true
    this.#pause.wake()
    await this.#running
    await this.#lose([...this.#workers.keys()])
    const { context, definition } = this.#options
    // What cannot be told now the others find by the lease.
    await context.store.giveBack(this.#member, [], true).catch((error: unknown) => {
      context.logger.debug(`Projection "${definition.name}" could not give its partitions back: ${messageOf(error)}`)
    })
  }

  async #run(): Promise<void> {
    const { context, definition } = this.#options
    const intervalMs = Math.min(beatIntervalMaxMs, definition.leaseMs / 5)
    for (let failures = 0; !this.#hasEnded();) {
      await this.#pause.wait(failures === 0 ? intervalMs : Math.min(intervalMs, backoffMs(failures)))
      if (this.#hasEnded()) return
      try {
        await this.#beat()
        failures = 0
      } catch (error) {
        failures += 1
        context.logger.debug(`A heartbeat of projection "${definition.name}" failed: ${messageOf(error)}`)
      }
    }
  }

  #hasEnded(): boolean {
    return this.#isStopping || this.#state === 'ended'
  }

  async #beat(): Promise<void> {
    const { context, definition, build } = this.#options
    const { leaseMs } = definition
    const beat = await context.store.beat(this.#member, leaseMs)
    if (beat.state !== build.state) {
      await this.#lose([...this.#workers.keys()])
      this.#end()
      return
    }
    if (!beat.alive) {
      // Under its old name this process can do nothing any more.
      await this.#lose([...this.#workers.keys()])
      this.#owner = randomUUID()
      if (!(await context.store.join(this.#member, leaseMs))) this.#end()
      else this.#pause.wake()
      return
    }
    await this.#balance(beat)
    for (const partition of beat.requested) this.#workers.get(partition)?.request()
  }

  async #balance({ owned, share, vacant }: Beat): Promise<void> {
    const { context } = this.#options
    await this.#lose([...this.#workers.keys()].filter((partition) => !owned.includes(partition)))
    // Of one whose taking was not answered the epoch is unknown; one that ended by itself begins anew.
    const unknown = owned.filter((partition) => this.#workers.get(partition)?.isOver !== false)
    const kept = owned.filter((partition) => !unknown.includes(partition))
    const given = [...unknown, ...kept.slice(share)]
    if (given.length > 0) {
      await this.#lose(given)
      await context.store.giveBack(this.#member, given, false)
    }
    if (kept.length >= share || vacant + unknown.length === 0) return
    const taken = await context.store.take(this.#member, share - kept.length)
    for (const partition of taken) this.#work(partition)
  }

  #work({ partition, epoch, position }: TakenPartition): void {
    const { context, definition, build, onChange } = this.#options
    const worker = new PartitionWorker({
      context,
      definition,
      build,
      holding: { ...this.#member, partition, epoch },
      position: BigInt(position),
      onNear: (isNear) => {
        if (isNear) this.#near.add(partition)
        else this.#near.delete(partition)
        if (isNear) onChange?.()
      },
      onMoved: () => onChange?.(),
      onGivenUp: (error) => {
        this.#failure ??= { error }
        onChange?.()
      },
    })
    this.#workers.set(partition, worker)
    worker.start()
  }

  async #lose(partitions: readonly number[]): Promise<void> {
    await Promise.all(
      partitions.map(async (partition) => {
        const worker = this.#workers.get(partition)
        this.#workers.delete(partition)
        this.#near.delete(partition)
        await worker?.stop()
      }),
    )
  }

  #end(): void {
    this.#state = 'ended'
    this.#options.onChange?.()
  }
}
