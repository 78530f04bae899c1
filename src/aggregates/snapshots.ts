import { type Logger, messageOf } from '../core/index.ts'
import { type StreamParts, streamName } from '../events/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { StateCodec } from './aggregate-options.ts'
import type { LoadedState } from './hot-states.ts'
import { commonKey } from './personal-boxes.ts'
import { seal, unseal } from './sealing.ts'
import { lostInJson } from './state-copy.ts'
import type { SubjectKeys } from './subject-keys.ts'

export interface SnapshotOptions<State> {
  readonly schema: string
  readonly pool: () => Queryable
  readonly logger: Logger
  readonly keys: SubjectKeys
  readonly stateVersion: number
  readonly codec: StateCodec<State> | undefined
}

/** A snapshot as it was read. */
export interface StoredSnapshot {
  readonly version: number
  readonly eventId: string
  readonly state: string
  readonly subjects: readonly string[]
}

/** Stores snapshots of the aggregates of one kind, behind the back of who loads them: what fails is logged and nothing else. */
export class Snapshots<State> {
  readonly #options: SnapshotOptions<State>
  /** By aggregate id. */
  readonly #running = new Map<string, Promise<void>>()
  #hasWarned = false

  constructor(options: SnapshotOptions<State>) {
    this.#options = options
  }

  /** The state in a stored snapshot; undefined: it cannot be used, and the events have to be. */
  async open(
    db: Queryable,
    stream: StreamParts,
    stored: StoredSnapshot,
  ): Promise<{ readonly state: State } | undefined> {
    const { keys: allKeys, codec } = this.#options
    const { subjects } = stored
    const keys = subjects.length === 0 ? undefined : await allKeys.forReading(db, subjects)
    if (keys !== undefined && keys.size < subjects.length) return undefined
    try {
      let json: unknown = JSON.parse(stored.state)
      if (keys !== undefined) {
        json = JSON.parse(unseal(commonKey(keys), json as string, this.#boundTo(stream, stored)).toString())
      }
      return { state: codec === undefined ? (json as State) : codec.decode(json) }
    } catch (error) {
      this.#options.logger.warn(`The snapshot of ${streamName(stream)} cannot be used: ${messageOf(error)}`)
      return undefined
    }
  }

  /** Begins to store one, unless one of the same aggregate is being stored. The state is put into text before this returns. */
  save(stream: StreamParts, loaded: LoadedState<State>): void {
    if (this.#running.has(stream.id)) return
    try {
      const text = this.#textOf(loaded.state)
      if (text === undefined) return
      const running = this.#store(stream, loaded, text)
        .catch((error: unknown) => this.#warn(stream, messageOf(error)))
        .finally(() => this.#running.delete(stream.id))
      this.#running.set(stream.id, running)
    } catch (error) {
      this.#warn(stream, messageOf(error))
    }
  }

  /** Resolves when none is being stored. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.values())
  }

  async #store(
    stream: StreamParts,
    { version, eventId = '', subjects }: LoadedState<State>,
    plain: string,
  ): Promise<void> {
    const { schema, pool, keys: allKeys, stateVersion } = this.#options
    const list = [...subjects]
    let state = plain
    if (list.length > 0) {
      const keys = await allKeys.forReading(pool(), list)
      if (keys.size < list.length) return
      const bound = this.#boundTo(stream, { version, eventId, subjects: list })
      state = JSON.stringify(seal(commonKey(keys), Buffer.from(plain), bound))
    }
    await pool().query(
      `select ${quoteIdentifier(schema)}.save_aggregate_snapshot(
        $1::text, $2::text, $3::integer, $4::bigint, $5::uuid, $6::text, $7::text)`,
      [stream.type, stream.id, stateVersion, version, eventId, state, JSON.stringify(list)],
    )
  }

  #boundTo(stream: StreamParts, { version, eventId, subjects }: Omit<StoredSnapshot, 'state'>): string {
    const { stateVersion } = this.#options
    return JSON.stringify([
      'trunkline snapshot 1',
      stream.type,
      stream.id,
      stateVersion,
      version,
      eventId,
      subjects.toSorted(),
    ])
  }

  /** Undefined: JSON would lose something of it. */
  #textOf(state: State): string | undefined {
    const { codec } = this.#options
    if (codec !== undefined) return JSON.stringify(codec.encode(state))
    const text = JSON.stringify(state) as string | undefined
    const lost = text === undefined ? 'state' : lostInJson(state, JSON.parse(text))
    if (lost === undefined) return text
    if (!this.#hasWarned) {
      this.#options.logger.warn(
        `A snapshot was not stored: JSON does not hold ${lost}. Give the aggregate a stateCodec.`,
      )
    }
    this.#hasWarned = true
    return undefined
  }

  #warn(stream: StreamParts, why: string): void {
    this.#options.logger.warn(`The snapshot of ${streamName(stream)} was not stored: ${why}`)
  }
}
