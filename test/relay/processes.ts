import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { expect, onTestFinished } from 'vitest'
import { eventually, type TestDatabase } from '../support/index.ts'
import type { RelayProcessOptions } from './relay-process.ts'

/** A relay in a process of its own. */
export interface RelayProcess {
  readonly pid: number
  /** Slots that it owns, as it told last. */
  readonly slots: readonly number[]
  readonly said: readonly Record<string, unknown>[]
  readonly hasEnded: boolean
  kill(signal: NodeJS.Signals): void
  /** Resolves when it has ended. */
  ended(): Promise<void>
}

/** Starts one, and resolves when it runs. It does not outlive the test. */
export async function startRelayProcess(options: RelayProcessOptions): Promise<RelayProcess> {
  const child: ChildProcess = spawn(
    process.execPath,
    [join(import.meta.dirname, 'relay-process.ts'), JSON.stringify(options)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const said: Record<string, unknown>[] = []
  let slots: readonly number[] = []
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const object = JSON.parse(line) as Record<string, unknown>
    said.push(object)
    if (object['slots'] !== undefined) slots = object['slots'] as number[]
  })
  const exited = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const started = eventually(
    () => said.some((object) => object['started'] === true) || child.exitCode !== null || child.signalCode !== null,
    {
      what: 'the relay runs',
      timeoutMs: 90_000,
    },
  )
  await started.catch((error: unknown) => {
    throw new Error(`It does not start, and said last: ${JSON.stringify(said.slice(-3))}`, { cause: error })
  })
  return {
    pid: child.pid!,
    get slots() {
      return slots
    },
    said,
    get hasEnded() {
      return child.exitCode !== null || child.signalCode !== null
    },
    kill: (signal) => {
      child.kill(signal)
    },
    ended: async () => {
      await exited
    },
  }
}

/** The table that relay processes write to, and the counters that writers order their events by. */
export async function prepareArrivals(database: TestDatabase, keys: number): Promise<void> {
  await database.query(`
    create table arrival (
      id bigserial primary key, pid integer, message_id uuid, key text, payload json,
      started_at timestamptz not null default clock_timestamp(), ended_at timestamptz
    );
    create table counter (key text primary key, n integer not null default 0);`)
  await database.query("insert into counter (key) select 'k' || g from generate_series(1, $1) as g", [keys])
}

/** Writers that emit events while they are wanted: { n } counts up for each key, in the order in which the key was held. */
export class Writers {
  /** Writes nothing while it is set. */
  isPaused = false
  #isStopped = false
  readonly #done: Promise<void>

  constructor(url: string, count: number, pauseMs = 0) {
    this.#done = Promise.all(Array.from({ length: count }, () => this.#write(url, pauseMs))).then(() => undefined)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#done
  }

  async #write(url: string, pauseMs: number): Promise<void> {
    let client: pg.Client | undefined
    while (!this.#isStopped) {
      if (this.isPaused) {
        await delay(20)
        continue
      }
      try {
        if (client === undefined) {
          client = new pg.Client({ connectionString: url })
          client.on('error', () => undefined)
          await client.connect()
        }
        await client.query('begin')
        for (let n = Math.ceil(Math.random() * 3); n > 0; n -= 1) {
          await client.query(
            `with c as (update counter set n = n + 1 where key = (select key from counter order by random() limit 1) returning key, n)
             select trunkline.emit('order', c.key, 'happened', jsonb_build_object('n', c.n)) from c`,
          )
        }
        await client.query(Math.random() < 0.1 ? 'rollback' : 'commit')
      } catch {
        // A deadlock of two keys rolls back; a broken connection is replaced.
        await client?.query('rollback').catch(async () => {
          await client?.end().catch(() => undefined)
          client = undefined
        })
      }
      if (pauseMs > 0 || client === undefined) await delay(pauseMs + 5)
    }
    await client?.end().catch(() => undefined)
  }
}

/** Events that wait for the relays, at which the writers pause: the rest is written when some of it has arrived. */
const behindMax = 3_000

/** Holds the writers back while too much waits: on a busy machine they would leave the relays behind for good. */
export function pace(
  writers: Writers,
  database: TestDatabase,
  arrivedCount: () => Promise<number>,
): { stop(): Promise<void> } {
  const over = new AbortController()
  const run = async (): Promise<void> => {
    while (!over.signal.aborted) {
      await Promise.all([eventCount(database), arrivedCount()]).then(
        ([events, arrived]) => (writers.isPaused = events - arrived > behindMax),
        // One of the two servers is down.
        () => undefined,
      )
      await delay(200)
    }
    writers.isPaused = false
  }
  const running = run()
  return {
    stop: async () => {
      over.abort()
      await running
    },
  }
}

async function eventCount(database: TestDatabase): Promise<number> {
  const [row] = await database.query<{ n: number }>(
    'select count(*)::integer as n from trunkline.log where operation = $1',
    ['e'],
  )
  return row!.n
}

export interface Outcome {
  readonly events: number
  readonly lost: number
  readonly outOfOrder: number
  /** Arrivals beyond the first of a message. */
  readonly repeated: number
  /** Deliveries of a key that began in one process while one of another was not over. */
  readonly overlaps: number
}

/** Compares what arrived with what the log has. `pausedPids`: calls of theirs that never ended are left out of overlaps. */
export async function outcomeOf(database: TestDatabase): Promise<Outcome> {
  const [row] = await database.query<Record<keyof Outcome, number>>(`
    with event as (
      select trunkline.message_id(l.id, l.xid, l.created_at) as message_id, l.key, (l.payload ->> 'n')::integer as n from trunkline.log as l
      where l.operation = 'e'
    ), first as (
      select a.message_id, min(a.id) as at from arrival as a group by a.message_id
    ), placed as (
      select e.key, e.n, f.at, lag(f.at) over (partition by e.key order by e.n) as before from event as e join first as f using (message_id)
    )
    select
      (select count(*) from event)::integer as events,
      (select count(*) from event as e where not exists (select from first as f where f.message_id = e.message_id))::integer as lost,
      (select count(*) from placed as p where p.before > p.at)::integer as "outOfOrder",
      (select count(*) - count(distinct a.message_id) from arrival as a)::integer as repeated,
      (select count(*) from arrival as a join arrival as b on b.key = a.key and b.pid <> a.pid
        and b.started_at > a.started_at and b.started_at < a.ended_at)::integer as overlaps`)
  return row!
}

/** Resolves when all that was emitted has arrived. */
export async function untilAllArrived(database: TestDatabase, timeoutMs = 30_000): Promise<void> {
  const what = async (): Promise<string> =>
    JSON.stringify(
      await database.query(`
        select l.id, l.xid, l.key, s.*, trunkline.is_covered(s.position, l.id, l.xid) as covered, (select count(*) from trunkline.relay_member) as members
        from trunkline.log as l join trunkline.relay as r on true
        join trunkline.relay_place as s on s.slot = trunkline.key_slot(l.key, l.id, r.slots)
        where not exists (select from arrival as a where a.message_id = trunkline.message_id(l.id, l.xid, l.created_at)) limit 5`),
    )
  await eventually(async () => (await outcomeOf(database)).lost === 0, {
    what: 'all events arrive',
    timeoutMs,
    intervalMs: 100,
  }).catch(async (error: unknown) => {
    throw new Error(`Not arrived: ${await what()}`, { cause: error })
  })
  expect((await outcomeOf(database)).events).toBeGreaterThan(0)
}
