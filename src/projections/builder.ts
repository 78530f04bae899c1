import { randomUUID } from 'node:crypto'
import { backoffMs, messageOf, Pause, pause, TrunklineError } from '../core/index.ts'
import { inTransaction, type Queryable } from '../postgres/index.ts'
import { BuildRun } from './build-run.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import type { Build } from './projection-store.ts'
import { Swap } from './swap.ts'
import { checkEmpty, checkExchangeable, makeBuiltTables, makeLiveTables } from './tables.ts'

/** Pause between two looks whether the build can be swapped, in milliseconds, where nothing wakes it. */
const lookMs = 500
/** So many positions behind the live build, it may be swapped in: the swap handles what is left. */
const nearPositions = 200n
/** Attempts of a swap that fails, before the rebuild gives up. */
const swapAttemptsMax = 3

export interface RebuildOptions {
  /** Carries on a build that nobody works on any more, instead of throwing it away. Only where handlers and tables are the same. Default false. */
  readonly resume?: boolean | undefined
  /** Ends the rebuild; what was built stays, and is thrown away (or carried on) by the next one. */
  readonly signal?: AbortSignal | undefined
}

/** The rebuild was ended by its signal, or by `stop()`. */
function stopped(name: string): TrunklineError {
  return new TrunklineError(`The rebuild of projection "${name}" was stopped.`, {
    code: 'rebuild_stopped',
    hint: 'The live tables are as they were. Rebuild again; with resume it is carried on.',
  })
}

/** Makes builds of a projection: the first one, and others beside the live one. */
export class Builder {
  readonly #context: ProjectionContext
  readonly #definition: Definition

  constructor(context: ProjectionContext, definition: Definition) {
    this.#context = context
    this.#definition = definition
  }

  /**
   * The live build. Where there is no build at all, an async one is begun that is live at once, and is made while it serves. Undefined: one has to be
   * made of the events that there are, and swapped in.
   */
  async ensureLive(): Promise<Build | undefined> {
    const { store } = this.#context
    const { name, version, mode, partitions, categories } = this.#definition
    const found = await store.builds(name)
    if (found.length > 0 || mode === 'inline') return found.find(({ state }) => state === 'live')
    return inTransaction(this.#context.pools().work, async (client) => {
      await store.lockProjection(client, name)
      if ((await store.builds(name, client)).length === 0) {
        const tables = await makeLiveTables(client, this.#definition)
        const build = await store.beginBuild(client, name, { version, mode, state: 'live', partitions, categories })
        await store.nameTables(client, name, build, { tables, builtAs: tables })
      }
      return (await store.builds(name, client)).find(({ state }) => state === 'live')
    })
  }

  /** Makes a build and swaps it in. Resolves when it is live, whoever made it so. */
  async rebuild({ resume = false, signal }: RebuildOptions): Promise<void> {
    const owner = randomUUID()
    const build = await this.#open(resume, owner)
    const wake = new Pause()
    const run = new BuildRun({
      context: this.#context,
      definition: this.#definition,
      build,
      owner,
      onChange: () => wake.wake(),
    })
    const onAbort = (): void => wake.wake()
    signal?.addEventListener('abort', onAbort)
    try {
      await run.start()
      await this.#follow(build, run, { wake, signal })
    } catch (error) {
      await run.stop()
      if (!(error instanceof TrunklineError && error.code === 'rebuild_stopped')) await this.#discard(build)
      throw error
    } finally {
      signal?.removeEventListener('abort', onAbort)
      await run.stop()
    }
  }

  async #follow(
    build: Build,
    run: BuildRun,
    { wake, signal }: { wake: Pause; signal: AbortSignal | undefined },
  ): Promise<void> {
    const { name } = this.#definition
    const never = new AbortController()
    const swap = new Swap(this.#context, this.#definition, build.build, signal ?? never.signal)
    let laters = 0
    for (let failures = 0; ;) {
      if (signal?.aborted === true) throw stopped(name)
      if (run.failure !== undefined) throw run.failure.error
      if (run.state === 'ended') {
        if (await this.#wasLive(build)) return
        throw new TrunklineError(`The build of projection "${name}" was given up by another process.`, {
          code: 'rebuild_given_up',
          hint: 'See its error there: an event does not go through, it seems. Then rebuild again.',
        })
      }
      if (await this.#isNear(build, run)) {
        try {
          const outcome = await swap.attempt()
          if (outcome === 'swapped') return
          failures = 0
          laters += 1
          // Writers wait for each attempt: not one after the other.
          await pause(backoffMs(laters, { firstMs: 20, maxMs: 1_000 }))
        } catch (error) {
          failures += 1
          if (failures >= swapAttemptsMax) throw error
          this.#context.logger.warn(`The swap of projection "${name}" failed: ${messageOf(error)}`)
        }
      }
      await wake.wait(lookMs)
    }
  }

  /** Whether a swap would have little left to handle: async up to where the live build is, else to the end of all events. */
  async #isNear({ build }: Build, run: BuildRun): Promise<boolean> {
    const { name, mode } = this.#definition
    const left = mode === 'async' ? await this.#context.store.positionsBehindLive(name, build) : undefined
    return left === undefined ? run.isNear : left <= nearPositions
  }

  /** It is live, or one is that was begun after it. */
  async #wasLive({ build }: Build): Promise<boolean> {
    const found = await this.#context.store.builds(this.#definition.name)
    return found.some((one) => one.state === 'live' && BigInt(one.build) >= BigInt(build))
  }

  /** Begins a build, or joins one that others work on: as a member, so that nobody takes it for abandoned. */
  async #open(resume: boolean, owner: string): Promise<Build> {
    const { store, pools } = this.#context
    const { name, leaseMs } = this.#definition
    return inTransaction(pools().work, async (client) => {
      await store.lockProjection(client, name)
      const build = (await this.#joinable(client, resume)) ?? (await this.#begin(client))
      await store.join({ projection: name, build: build.build, owner }, leaseMs, client)
      return build
    })
  }

  /** The build that there is, if it is worked on or to be carried on; another one is dropped. */
  async #joinable(client: Queryable, resume: boolean): Promise<Build | undefined> {
    const { name, version, mode } = this.#definition
    const found = await this.#context.store.builds(name, client)
    const present = found.find(({ state }) => state === 'building')
    if (present === undefined) return undefined
    if (present.members === 0 && !resume) {
      await this.#drop(client, present)
      return undefined
    }
    if (present.version === version && present.mode === mode) return present
    throw new TrunklineError(
      `Projection "${name}" is being rebuilt to version ${present.version} (${present.mode}), and this is version ${version} (${mode}).`,
      {
        code: 'rebuild_in_progress',
        retryable: present.members > 0,
        hint: 'Wait until it is done, or rebuild without resume.',
      },
    )
  }

  async #begin(client: Queryable): Promise<Build> {
    const { store } = this.#context
    const { name, version, mode, partitions, categories, tables } = this.#definition
    const live = (await store.builds(name, client)).find(({ state }) => state === 'live')
    if (live !== undefined && tables === undefined) {
      throw new TrunklineError(`Projection "${name}" cannot be rebuilt: it does not say which tables it writes to.`, {
        code: 'tables_undeclared',
        hint: "Declare them: tables: { name: (table) => SQL }, and write to context.table('name').",
      })
    }
    if (live === undefined) await checkEmpty(client, this.#definition)
    await checkExchangeable(store, client, this.#definition, live?.tables ?? [])
    const build = await store.beginBuild(client, name, { version, mode, state: 'building', partitions, categories })
    await store.nameTables(client, name, build, await makeBuiltTables(client, this.#definition, build))
    return (await store.builds(name, client)).find((one) => one.build === build) as Build
  }

  /** What was built is thrown away, unless somebody else still works on it. */
  async #discard(build: Build): Promise<void> {
    const { store, pools, logger } = this.#context
    const { name } = this.#definition
    await inTransaction(pools().work, async (client) => {
      await store.lockProjection(client, name)
      const present = (await store.builds(name, client)).find((one) => one.build === build.build)
      if (present?.state === 'building' && present.members === 0) await this.#drop(client, present)
    }).catch((error: unknown) => {
      // The next rebuild does it.
      logger.debug(`A build of projection "${name}" was not thrown away: ${messageOf(error)}`)
    })
  }

  async #drop(client: Queryable, { build, builtAs }: Build): Promise<void> {
    await this.#context.store.dropBuild(client, this.#definition.name, build)
    if (builtAs.length > 0) await client.query(`drop table if exists ${builtAs.join(', ')}`)
  }
}
