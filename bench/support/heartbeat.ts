import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import type { Arrival } from './fleet.ts'

/** The row that is updated at a steady pace; its column `version` counts. */
export const heartbeatId = 0
const intervalMs = 100

/** Updates the row of the table at a steady pace, and remembers when. */
export class Heartbeat {
  /** By beat: when it was about to commit, by Date.now(). */
  readonly #committedAt = new Map<number, number>()
  readonly #client: pg.Client
  readonly #table: string
  #isStopped = false
  #loop: Promise<void> | undefined

  constructor(client: pg.Client, table: string) {
    this.#client = client
    this.#table = table
  }

  start(): void {
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#loop
  }

  /** When the last beat so far committed, by Date.now(). */
  get latestAt(): number {
    return [...this.#committedAt.values()].at(-1) ?? 0
  }

  /**
   * How far each cache was behind at most, in milliseconds: it lacked a beat for that long after its commit. Counts beats
   * from one moment until another, by Date.now(); one that a cache has not shown yet counts until now.
   */
  behind(
    arrivals: readonly Arrival[],
    { caches, from, until }: { caches: number; from: number; until: number },
  ): number[] {
    const beats = [...this.#committedAt].filter(([, at]) => at >= from && at <= until)
    const byCache = Map.groupBy(arrivals, ({ cache }) => cache)
    return Array.from({ length: caches }, (_, cache) => {
      const own = byCache.get(cache) ?? []
      let place = 0
      return beats.reduce((worst, [beat, at]) => {
        // Arrivals are in order: the first that shows this beat or a later one.
        while (place < own.length && (own[place]?.beat ?? 0) < beat) place += 1
        return Math.max(worst, (own[place]?.at ?? Date.now()) - at)
      }, 0)
    })
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const due = performance.now() + intervalMs
      // The server's clock is this machine's; the commit follows at once.
      const { rows } = await this.#client.query<{ version: number; at: number }>({
        name: 'beat',
        text: `update ${this.#table} set version = version + 1 where id = ${heartbeatId}
          returning version, (extract(epoch from clock_timestamp()) * 1000)::double precision as at`,
      })
      for (const { version, at } of rows) this.#committedAt.set(version, at)
      await pause(Math.max(0, due - performance.now()))
    }
  }
}
