import pg from 'pg'
import { backoffMs, messageOf, pause } from '../core/index.ts'
import type { RecordedEvent } from '../events/index.ts'
import { inTransaction, isLockContention, lockTimeoutMs, type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { ProjectionError } from './errors.ts'
import { Handling, openEvents } from './handling.ts'
import { partitionOf } from './partition-of.ts'
import type { ProjectionContext } from './projection-context.ts'
import type { Definition } from './projection-options.ts'
import type { Build } from './projection-store.ts'
import { checkExchangeable, inUse, tableNameOf } from './tables.ts'

/** Most events that a swap handles itself, while writers wait: with more, the build goes on beside for a while. */
const tailEventsMax = 1_000

/** Longest time that a swap handles events itself, in milliseconds: writers wait as long. */
const tailMaxMs = 5_000

/** Others depend on what is to be dropped. */
const dependentState = '2BP01'

/** What came of an attempt to swap. `later`: somebody is in the way, or it is too far behind. */
export type SwapOutcome = 'swapped' | 'later' | 'gone'

/** Not now: all is rolled back. */
class NotYet extends Error {}

interface Place {
  readonly build: string
  readonly partition: number
  readonly position: string
  readonly anchored: boolean
}

/**
 * Makes a build the live one, in one transaction (docs/projections.md, P14 and P15). Waits for a second at most for whoever is in
 * the way.
 *
 * @throws what the tables say: `read_model_in_use`.
 */
export class Swap {
  readonly #context: ProjectionContext
  readonly #definition: Definition
  readonly #build: string
  readonly #signal: AbortSignal

  constructor(context: ProjectionContext, definition: Definition, build: string, signal: AbortSignal) {
    this.#context = context
    this.#definition = definition
    this.#build = build
    this.#signal = signal
  }

  async attempt(): Promise<SwapOutcome> {
    const { pools, logger } = this.#context
    try {
      return await inTransaction(pools().work, (client) => this.#run(client))
    } catch (error) {
      // An event that fails is the build's to try, and to park or to give up: it comes to it as well.
      const isOfEvent = error instanceof ProjectionError
      if (!(error instanceof NotYet) && !isOfEvent && !isLockContention(error)) throw error
      logger.debug(`The swap of projection "${this.#definition.name}" waits: ${messageOf(error)}`)
      return 'later'
    }
  }

  /** All of it on one connection: others may wait for what it holds, those of this process included. */
  async #run(client: pg.PoolClient): Promise<SwapOutcome> {
    const { store, schema } = this.#context
    const { name } = this.#definition
    // Whoever is frozen in it must not hold up the others for ever.
    const idleMs = this.#definition.handlerTimeoutMs + 5_000
    await client.query(
      `set local lock_timeout = ${lockTimeoutMs}; set local idle_in_transaction_session_timeout = ${idleMs}`,
    )
    await client.query(`select ${quoteIdentifier(schema)}.projection_gate($1, true)`, [name])
    const builds = await store.builds(name, client, true)
    const build = builds.find((one) => one.build === this.#build)
    if (build === undefined) return 'gone'
    if (build.state === 'live') return 'swapped'
    const live = builds.find((one) => one.state === 'live')
    const places = await this.#places(client)
    const own = places.filter((place) => place.build === build.build)
    const until = await this.#until(client, live, places)
    if (until !== 'none') await this.#handleTail(client, build, own, until === 'all' ? undefined : until)
    await this.#exchange(client, build, live)
    await this.#record(client, build, live, typeof until === 'bigint' ? until : undefined)
    return 'swapped'
  }

  async #places(client: Queryable): Promise<Place[]> {
    const place = quoteIdentifier(this.#context.schema)
    const { rows } = await client.query<Place & pg.QueryResultRow>(
      `select p.build::text, p.partition, p.position::text, ${place}.is_projection_anchored(p.position, p.anchor_position, p.anchor_id) as anchored
       from ${place}.projection_partition as p where p.projection = $1 order by p.build, p.partition for update`,
      [this.#definition.name],
    )
    return rows
  }

  /** How far it has to be: up to where the live build is; inline to all that is committed, once nobody is on his way. */
  async #until(client: Queryable, live: Build | undefined, places: readonly Place[]): Promise<bigint | 'all' | 'none'> {
    if (this.#definition.mode === 'inline') {
      await this.#untilWritersEnd(client)
      return 'all'
    }
    // What an inline build has beyond this checkpoint comes by it, as anything that is new.
    if (live?.mode !== 'async') return 'none'
    // A checkpoint of another history says nothing of this one.
    const positions = places
      .filter(({ build, anchored }) => build === live.build && anchored)
      .map(({ position }) => BigInt(position))
    return positions.length === 0 ? 'none' : positions.reduce((one, other) => (one > other ? one : other))
  }

  /** Those who had begun before the gate was closed, and do not wait at it: they have not met this projection. */
  async #untilWritersEnd(client: Queryable): Promise<void> {
    const place = quoteIdentifier(this.#context.schema)
    const look = async (): Promise<string[]> => {
      const { rows } = await client.query<{ writers: string[] }>(`select ${place}.projection_writers($1) as writers`, [
        this.#definition.name,
      ])
      return rows[0]?.writers ?? []
    }
    const deadline = performance.now() + lockTimeoutMs
    const first = await look()
    for (let attempt = 1, left = first; left.length > 0; attempt += 1) {
      if (performance.now() > deadline) throw new NotYet('a transaction that writes events is open')
      await pause(backoffMs(attempt, { firstMs: 5, maxMs: 50 }))
      const present = new Set(await look())
      left = first.filter((writer) => present.has(writer))
    }
  }

  async #handleTail(
    client: pg.PoolClient,
    build: Build,
    own: readonly Place[],
    until: bigint | undefined,
  ): Promise<void> {
    const { store, events } = this.#context
    const { categories } = this.#definition
    const positions = own.map(({ position }) => BigInt(position))
    const after = positions.reduce((one, other) => (one < other ? one : other))
    const read = await store.events(client, { after, until, categories, limit: tailEventsMax + 1 })
    if (read.length > tailEventsMax) throw new NotYet('there are too many events to handle')
    const tail = read.filter(
      ({ stream, position }) => BigInt(position) > (positions[partitionOf(stream, build.partitions)] ?? 0n),
    )
    const parked = await store.parkedStreams({ projection: this.#definition.name, build: build.build }, null, client)
    const handling = new Handling(client, {
      definition: this.#definition,
      nameOf: tableNameOf(build),
      replayUntil: 2n ** 63n,
      timeoutMs: Math.min(this.#definition.handlerTimeoutMs, tailMaxMs),
      signal: this.#signal,
    })
    const deadline = performance.now() + tailMaxMs
    const before = await store.rowsWritten(client, build.tables)
    try {
      for (const event of await openEvents(events, tail, client)) {
        if (parked.has(event.stored.stream)) await this.#park(client, build, event.stored)
        else await handling.handle(event)
        if (performance.now() > deadline) throw new NotYet('its handlers take too long')
      }
    } finally {
      handling.end()
    }
    // Which event it was the build's own worker finds.
    if ((await store.rowsWritten(client, build.tables)) !== before) throw new NotYet('a handler writes to a live table')
  }

  async #park(client: Queryable, build: Build, event: RecordedEvent): Promise<void> {
    const partition = partitionOf(event.stream, build.partitions)
    await this.#context.store.park(client, { projection: this.#definition.name, build: build.build, partition }, [
      { event },
    ])
  }

  async #exchange(client: Queryable, build: Build, live: Build | undefined): Promise<void> {
    if (build.tables.length === 0) return
    const old = live?.tables ?? []
    await checkExchangeable(this.#context.store, client, this.#definition, old)
    try {
      await client.query(`select ${quoteIdentifier(this.#context.schema)}.projection_swap_tables($1, $2, $3)`, [
        build.tables,
        build.builtAs,
        old,
      ])
    } catch (error) {
      // What nobody looks for, such as a column of the table's type.
      if (!(error instanceof pg.DatabaseError) || error.code !== dependentState) throw error
      throw inUse(this.#definition.name, error.detail?.split('\n') ?? [], error)
    }
  }

  async #record(client: Queryable, build: Build, live: Build | undefined, until: bigint | undefined): Promise<void> {
    const place = quoteIdentifier(this.#context.schema)
    const { name } = this.#definition
    if (live !== undefined) await this.#context.store.dropBuild(client, name, live.build)
    await client.query(
      `update ${place}.projection_partition as p
       set position = greatest(p.position, $3::bigint), owner = null, epoch = p.epoch + 1, updated_at = clock_timestamp(),
         anchor_position = a.position, anchor_id = a.id
       from ${place}.projection_partition as q
       left join lateral (
         select e.position, e.id from ${place}.event as e where e.position <= greatest(q.position, $3::bigint) order by e.position desc limit 1
       ) as a on true
       where p.projection = $1 and p.build = $2 and q.projection = p.projection and q.build = p.build and q.partition = p.partition`,
      [name, build.build, (until ?? 0n).toString()],
    )
    await client.query(
      // What the retired build had handled is replayed, and so is all where that was inline.
      `update ${place}.projection_build as b set state = 'live', built_as = b.tables, live_at = now(),
         replay_until = coalesce($3::bigint, (select case when s.is_called then s.last_value else 0 end from ${place}.event_position_seq as s))
       where b.projection = $1 and b.build = $2`,
      [name, build.build, until?.toString() ?? null],
    )
    // Who worked on it while it was built is done; those who serve join anew.
    await client.query(`delete from ${place}.projection_member as m where m.projection = $1 and m.build = $2`, [
      name,
      build.build,
    ])
  }
}
