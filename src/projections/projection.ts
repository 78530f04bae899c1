import { backoffMs, InvalidInputError, messageOf, Pause, Service, TrunklineError } from '../core/index.ts'
import { BuildRun } from './build-run.ts'
import { Builder, type RebuildOptions } from './builder.ts'
import { ProjectionTimeoutError } from './errors.ts'
import { ParkedEvents } from './parked-events.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import { type ProjectionStatus, projectionStatuses } from './projection-status.ts'
import { type Build, projectionStoreError } from './projection-store.ts'

/** Default of `reached`: milliseconds to wait. */
export const reachedTimeoutMsDefault = 10_000
/** Pause of a process whose version is not the live one before it looks again, in milliseconds. */
const standByMs = 1_000
/** Longest pause between two looks of `reached`, in milliseconds. */
const reachedLookMaxMs = 100

export interface ReachedOptions {
  /** Milliseconds to wait at most. Default 10,000. */
  readonly timeoutMs?: number | undefined
  /** Ends the wait, with its reason. */
  readonly signal?: AbortSignal | undefined
}

/**
 * A read model made of events. Made by `trunkline.projection`; see docs/projections.md for what holds.
 *
 * `start` resolves when it works (async: it has its share of the partitions, or stands by; inline: it is live, and appends of this process run it).
 * It creates what does not exist, and rebuilds where the live version is lower. @throws InvalidInputError `table_not_empty`,
 * `unknown_table`, `no_privilege`; TrunklineError `schema_missing`, `projection_version` (inline: a higher version is live).
 */
export class Projection extends Service {
  readonly name: string
  readonly version: number
  readonly mode: 'inline' | 'async'
  /** Events of it that are put aside. */
  readonly parked: ParkedEvents
  readonly #context: ProjectionContext
  readonly #definition: Definition
  readonly #builder: Builder
  readonly #pause = new Pause()
  readonly #waiting = new Set<Pause>()
  readonly #rebuilds = new Set<Promise<void>>()
  #ending = new AbortController()
  #endingRebuilds = new AbortController()
  #run: BuildRun | undefined
  #following: Promise<void> | undefined

  constructor(context: ProjectionContext, definition: Definition) {
    super()
    this.name = definition.name
    this.version = definition.version
    this.mode = definition.mode
    this.#context = context
    this.#definition = definition
    this.#builder = new Builder(context, definition)
    this.parked = new ParkedEvents(context.pool, context.schema, definition.name)
  }

  /**
   * Makes the read model anew from all events, in tables beside the live ones, and swaps it in; resolves then. The live ones serve and are
   * fed meanwhile. Needs no `start`. Called in several processes, they share the work.
   *
   * @throws ProjectionError: an event does not go through, and the live tables stay. TrunklineError `tables_undeclared`, `read_model_in_use`,
   *   `rebuild_in_progress`, `rebuild_stopped`. InvalidInputError `no_privilege`.
   */
  async rebuild(options: RebuildOptions = {}): Promise<void> {
    const rebuilding = this.#rebuild(options, this.#endingRebuilds.signal)
    this.#rebuilds.add(rebuilding)
    try {
      await rebuilding
    } finally {
      this.#rebuilds.delete(rebuilding)
      // Who runs it in this process goes on with the new build.
      this.#pause.wake()
    }
  }

  /** Resolves when all is released; a rebuild that runs ends with `rebuild_stopped`, also where nothing was started. */
  override async stop(): Promise<void> {
    this.#endingRebuilds.abort()
    this.#endingRebuilds = new AbortController()
    await Promise.allSettled(this.#rebuilds)
    await super.stop()
  }

  async #rebuild(options: RebuildOptions, ending: AbortSignal): Promise<void> {
    await this.#context.ready()
    const signal = options.signal === undefined ? ending : AbortSignal.any([ending, options.signal])
    try {
      await this.#builder.rebuild({ ...options, signal })
    } catch (error) {
      throw projectionStoreError(error, `Rebuilding projection "${this.name}"`, this.#context.schema)
    }
  }

  /**
   * Resolves when everything up to a position is handled (or parked): what `append` returned as `position`, say, before its effect is read.
   * Inline that is so when the append has committed.
   *
   * @throws ProjectionTimeoutError. InvalidInputError `invalid_argument`.
   */
  async reached(
    position: string | bigint,
    { timeoutMs = reachedTimeoutMsDefault, signal }: ReachedOptions = {},
  ): Promise<void> {
    const wanted = checkedPosition(position)
    const deadline = performance.now() + timeoutMs
    const pause = new Pause()
    const onAbort = (): void => pause.wake()
    this.#waiting.add(pause)
    signal?.addEventListener('abort', onAbort)
    try {
      for (let attempt = 1; ; attempt += 1) {
        signal?.throwIfAborted()
        const at = await this.#position()
        if (at === 'all' || (at !== undefined && at >= wanted)) return
        const leftMs = deadline - performance.now()
        if (leftMs <= 0) throw new ProjectionTimeoutError(this.name, wanted.toString(), at?.toString(), timeoutMs)
        await pause.wait(Math.min(leftMs, backoffMs(attempt, { firstMs: 10, maxMs: reachedLookMaxMs })))
      }
    } finally {
      this.#waiting.delete(pause)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** How it is; undefined: it was never started. */
  async status(): Promise<ProjectionStatus | undefined> {
    const [status] = await this.#asked(() => projectionStatuses(this.#context.pool(), this.#context.schema, this.name))
    return status
  }

  protected async onStart(): Promise<void> {
    await this.#context.ready()
    this.#ending = new AbortController()
    await this.#asked(() => (this.mode === 'inline' ? this.#startInline() : this.#startAsync()))
  }

  protected async onStop(): Promise<void> {
    this.#ending.abort()
    this.#pause.wake()
    this.#context.inline.remove(this.#definition)
    await this.#run?.stop()
    await this.#following
    this.#following = undefined
    this.#run = undefined
  }

  async #startInline(): Promise<void> {
    const live = await this.#builder.ensureLive()
    if (live !== undefined && live.version > this.version) {
      throw new TrunklineError(
        `Version ${live.version} of projection "${this.name}" is live, and this process has version ${this.version}.`,
        {
          code: 'projection_version',
          hint: 'Run the release that has it.',
          details: { live: live.version, version: this.version },
        },
      )
    }
    // First: an append that enters the gate after the swap finds it live.
    this.#context.inline.add(this.#definition)
    if (live?.version === this.version && live.mode === this.mode) return
    await this.#builder.rebuild({ signal: this.#ending.signal })
  }

  async #startAsync(): Promise<void> {
    const live = await this.#builder.ensureLive()
    if (live !== undefined && this.#isOurs(live)) await this.#work(live)
    this.#following = this.#follow()
  }

  #isOurs(live: Build): boolean {
    return live.version === this.version && live.mode === this.mode
  }

  async #work(build: Build): Promise<void> {
    const run = new BuildRun({
      context: this.#context,
      definition: this.#definition,
      build,
      onChange: () => {
        for (const waiting of this.#waiting) waiting.wake()
        if (run.state === 'ended') this.#pause.wake()
      },
    })
    this.#run = run
    await run.start()
  }

  /** Goes on with whatever build is live, as long as it is of this version. */
  async #follow(): Promise<void> {
    for (let failures = 0; !this.#ending.signal.aborted;) {
      try {
        if (this.#run?.state === 'working') await this.#pause.wait(standByMs)
        else await this.#next()
        failures = 0
      } catch (error) {
        failures += 1
        if (this.#ending.signal.aborted) return
        this.#context.logger.warn(`Projection "${this.name}": ${messageOf(error)}`)
        await this.#pause.wait(backoffMs(failures, { firstMs: 200, maxMs: 30_000 }))
      }
    }
  }

  async #next(): Promise<void> {
    await this.#run?.stop()
    this.#run = undefined
    const live = await this.#builder.ensureLive()
    if (this.#ending.signal.aborted) return
    if (live !== undefined && this.#isOurs(live)) await this.#work(live)
    else if (live === undefined || live.version <= this.version)
      await this.#builder.rebuild({ signal: this.#ending.signal })
    else {
      this.#context.logger.debug(`Projection "${this.name}" stands by: version ${live.version} is live.`)
      await this.#pause.wait(standByMs)
    }
  }

  /** Undefined: there is nothing live. */
  async #position(): Promise<bigint | 'all' | undefined> {
    const live = await this.#asked(() => this.#context.store.livePosition(this.#context.pool(), this.name))
    if (live === undefined) return undefined
    return live.mode === 'inline' ? 'all' : BigInt(live.position)
  }

  async #asked<Result>(ask: () => Promise<Result>): Promise<Result> {
    try {
      return await ask()
    } catch (error) {
      throw projectionStoreError(error, `Projection "${this.name}"`, this.#context.schema)
    }
  }
}

function checkedPosition(position: unknown): bigint {
  if (typeof position === 'bigint' && position >= 0n) return position
  if (typeof position === 'string' && /^\d{1,18}$/.test(position)) return BigInt(position)
  throw new InvalidInputError(
    `reached: the position is ${typeof position === 'string' ? JSON.stringify(position) : typeof position}.`,
    {
      code: 'invalid_argument',
      hint: 'Pass what append returned as position, or the position of an event.',
    },
  )
}
