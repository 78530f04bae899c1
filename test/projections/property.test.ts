import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import type { EventStore, NewEvent } from '../../src/index.ts'
import { randomOf } from '../events/workload.ts'
import { describeEachPostgres, eventually, type TestDatabase, useDatabase } from '../support/index.ts'
import { differences, noDifference, open, prepare } from './projecting.ts'
import type { ProjectionProcessOptions } from './projection-process.ts'
import { type Counted, seenHandlers, seenTables } from './read-model.ts'

/** How many events the property test writes. */
const eventsMax = Number(process.env['TRUNKLINE_TEST_EVENTS'] ?? 300)
const seed = Number(process.env['TRUNKLINE_TEST_SEED'] ?? Date.now() % 100_000)

/** Writers at once: plain, early transaction ids, several streams, rollbacks, savepoints. Gives how many events were written. */
async function write(database: TestDatabase, events: EventStore, random: () => number): Promise<void> {
  let written = 0
  const stream = (): string => `s${Math.floor(random() * 3)}-${Math.floor(random() * 15)}`
  const batch = (): NewEvent[] =>
    Array.from({ length: 1 + Math.floor(random() * 3) }, () => ({
      type: random() < 0.9 ? 'counted' : 'noted',
      payload: { by: Math.floor(random() * 100) },
    }))
  const run = async (): Promise<void> => {
    const client = await database.connect()
    while (written < eventsMax) {
      const list = batch()
      written += list.length
      if (random() < 0.4) {
        await events.append(stream(), 'any', list)
        continue
      }
      await client.query('begin')
      try {
        if (random() < 0.5) await client.query('select txid_current()')
        await client.query(`select pg_sleep(${(random() ** 4 * 0.02).toFixed(4)})`)
        for (const to of [...new Set([stream(), stream()])].toSorted())
          await events.append(to, 'any', list, { tx: client })
        await client.query('savepoint here')
        await events.append(stream(), 'any', list, { tx: client })
        if (random() < 0.5) await client.query('rollback to here')
        await client.query(random() < 0.7 ? 'commit' : 'rollback')
      } catch (error) {
        // A deadlock of streams in another order: it has rolled back.
        if ((error as { code?: string }).code !== 'deadlock') throw error
        await client.query('rollback')
      }
    }
    await client.end()
  }
  await Promise.all(Array.from({ length: 8 }, run))
}

describeEachPostgres('a projection that is killed and rebuilt under writers', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  function start(rebuilds: boolean): ChildProcess {
    const options: ProjectionProcessOptions = { url: database().url, rebuilds }
    return spawn(process.execPath, [join(import.meta.dirname, 'projection-process.ts'), JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
  }

  /** Two processes, of which one is killed again and again with SIGKILL; one of them rebuilds. Ends them when told. */
  function fight(random: () => number): () => Promise<number> {
    let kills = 0
    const ending = new AbortController()
    const run = async (rebuilds: boolean): Promise<void> => {
      while (!ending.signal.aborted) {
        const child = start(rebuilds)
        const exited = once(child, 'exit')
        onTestFinished(async () => {
          child.kill('SIGKILL')
          await exited
        })
        await Promise.race([once(child.stdout!, 'data'), exited])
        // Until it has done something: then, at any point of what it does next.
        const epoch = async (): Promise<bigint> =>
          BigInt(
            (
              await database().query<{ n: string }>(
                `select coalesce(sum(position + epoch), 0)::text as n from trunkline.projection_partition`,
              )
            )[0]!.n,
          )
        const before = await epoch()
        await eventually(async () => (await epoch()) !== before || ending.signal.aborted, { timeoutMs: 120_000 })
        await new Promise((resolve) => setTimeout(resolve, random() * 300))
        child.kill('SIGKILL')
        await exited
        kills += 1
      }
    }
    const running = Promise.all([run(false), run(true)])
    return async () => {
      ending.abort()
      await running
      return kills
    }
  }

  test(
    `after ${eventsMax} events it is what a replay is: none lost, none doubled, in order (seed ${seed})`,
    { retry: 0, timeout: 120_000 + eventsMax * 100 },
    async () => {
      const random = randomOf(seed)
      const trunkline = open(database())
      const end = fight(random)
      await write(database(), trunkline.events, random)
      expect(await end()).toBeGreaterThan(1)
      const child = start(false)
      const exited = once(child, 'exit')
      const [last] = await trunkline.events.query({ direction: 'backward', limit: 1 })
      const projection = trunkline.projection<Counted>({
        name: 'seen',
        mode: 'async',
        partitions: 3,
        tables: seenTables('seen'),
        handlers: seenHandlers('seen'),
      })
      await projection.reached(last!.position, { timeoutMs: 60_000 })
      expect(await differences(database(), 'seen')).toEqual(noDifference)
      // And so is one that was made anew; nothing of those that died is left.
      await projection.rebuild()
      expect(await differences(database(), 'seen')).toEqual(noDifference)
      expect(
        await database().query(`select relname from pg_class where relname ~ '__[0-9]' and relname !~ '^pg_'`),
      ).toEqual([])
      child.kill('SIGKILL')
      await exited
    },
  )
})
