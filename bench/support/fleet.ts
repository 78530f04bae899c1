import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'

/**
 * Processes that the instances are spread over. Where all processors are busy each process gets an equal part of them: few
 * processes would starve, and two hundred, as in production, would take too long to start.
 */
const processCount = 20

export interface FleetOptions {
  readonly url: string
  readonly table: string
  /** Instances of trunkline, each with its own connections and one cache of the table. */
  readonly size: number
  readonly minIntervalMs: number
  readonly pollIntervalMs: number
}

/** What a process of the fleet is told. */
export type FleetCommand = 'report' | 'stop'

/** When a cache first showed which heartbeat. */
export interface Arrival {
  /** Number of the cache, from 0. */
  readonly cache: number
  readonly beat: number
  /** By Date.now(). */
  readonly at: number
}

/** What a process of the fleet tells. */
export type FleetMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'arrivals'; readonly arrivals: readonly Arrival[] }

/** Many instances of trunkline in a few processes, each with a cache of the same table. */
export class Fleet implements AsyncDisposable {
  readonly #processes: readonly ChildProcess[]

  private constructor(processes: readonly ChildProcess[]) {
    this.#processes = processes
  }

  /** Resolves when all caches are complete. */
  static async start({ url, table, size, minIntervalMs, pollIntervalMs }: FleetOptions): Promise<Fleet> {
    const processes = Array.from({ length: processCount }, (_, place) => {
      const [first, end] = [place, place + 1].map((bound) => Math.floor((size * bound) / processCount))
      const numbers = [first, end, minIntervalMs, pollIntervalMs].map(String)
      // A session of its own, as in production: Linux shares the processors among sessions (sched_autogroup), and each
      // backend of the server has one; in ours all caches together would get as much as one idle backend that is woken.
      return fork(new URL('fleet-process.ts', import.meta.url), [url, table, ...numbers], { detached: true })
    })
    const fleet = new Fleet(processes)
    await Promise.all(processes.map(async (process) => next(process, 'ready')))
    return fleet
  }

  /** What arrived since the last report. */
  async report(): Promise<Arrival[]> {
    const reports = this.#processes.map(async (process) => {
      const reported = next(process, 'arrivals')
      process.send('report' satisfies FleetCommand)
      const { arrivals } = await reported
      return arrivals
    })
    return (await Promise.all(reports)).flat()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      this.#processes.map(async (process) => {
        if (process.exitCode !== null) return
        const ended = once(process, 'exit')
        process.send('stop' satisfies FleetCommand)
        await ended
      }),
    )
  }
}

async function next<Kind extends FleetMessage['kind']>(
  process: ChildProcess,
  kind: Kind,
): Promise<Extract<FleetMessage, { kind: Kind }>> {
  const message = new Promise<FleetMessage>((resolve, reject) => {
    process.once('message', (received) => resolve(received as FleetMessage))
    process.once('exit', (code) => reject(new Error(`A process of the fleet ended with ${code}.`)))
  })
  const received = await message
  if (received.kind !== kind) throw new Error(`A process of the fleet told ${received.kind}, expected ${kind}.`)
  return received as Extract<FleetMessage, { kind: Kind }>
}
