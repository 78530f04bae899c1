import { beforeAll, expect, test } from 'vitest'
import type { Projection, RecordedEvent } from '../../src/index.ts'
import { randomOf } from '../events/workload.ts'
import { describeEachPostgres, eventually, terminateBackends, useDatabase } from '../support/index.ts'
import { open, prepare } from './projecting.ts'
import { type Counted } from './read-model.ts'

/** How many events it writes. */
const eventsMax = Number(process.env['TRUNKLINE_TEST_EVENTS'] ?? 300)
const seed = Number(process.env['TRUNKLINE_TEST_SEED'] ?? Date.now() % 100_000)

describeEachPostgres('parking under faults', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  test(
    `after ${eventsMax} events each is applied once and in order, or was to be discarded (seed ${seed})`,
    { retry: 0, timeout: 120_000 + eventsMax * 100 },
    async () => {
      const random = randomOf(seed)
      const bad = new Set(Array.from({ length: eventsMax / 12 }, () => Math.floor(random() * eventsMax)))
      let faults = 0.05
      await database().query('create table applied (place bigserial, stream text, version int, n int)')
      const start = async (): Promise<Projection> => {
        const projection = open(database()).projection<Counted>({
          name: 'faulty',
          mode: 'async',
          partitions: 3,
          batchSize: 10,
          leaseMs: 500,
          onFailure: 'park',
          attemptsMax: 2,
          // Fewer than there may be: a partition stops, and retries have to go on.
          parkedMax: 4,
          handlers: {
            counted: async (event: RecordedEvent<'counted', { by: number }>, { query }) => {
              await query('insert into applied (stream, version, n) values ($1, $2, $3)', [
                event.stream,
                event.version,
                event.payload.by,
              ])
              if (bad.has(event.payload.by) || random() < faults) throw new Error('fault')
            },
          },
        })
        await projection.start()
        return projection
      }
      const { events } = open(database())
      const running = [await start(), await start()]
      const unwanted = new Set<string>()
      const ending = new AbortController()
      const disturb = async (): Promise<void> => {
        while (!ending.signal.aborted) {
          const projection = running[Math.floor(random() * 2)]!
          const parked = await projection.parked.list()
          const one = parked[Math.floor(random() * parked.length)]
          const what = random()
          if (what < 0.2) {
            await terminateBackends(database(), { where: `application_name like 'trunkline projection%'` })
          } else if (what < 0.4) {
            await projection.stop()
            await projection.start()
          } else if (what < 0.6 && one !== undefined) {
            unwanted.add(`${one.stream} ${one.version}`)
            await projection.parked.discard({ ids: [one.id] }).catch(() => undefined)
          } else if (one !== undefined) {
            await projection.parked.retry({ ids: [one.id] }).catch(() => undefined)
          }
          await new Promise((resolve) => setTimeout(resolve, random() * 60))
        }
      }
      // In bursts: pages of many events, of which most are of streams that wait.
      const write = async (): Promise<void> => {
        for (let by = 0; by < eventsMax; by += 1) {
          await events.append(`p-${Math.floor(random() * 8)}`, 'any', { type: 'counted', payload: { by } })
          if (by % 30 === 0) await new Promise((resolve) => setTimeout(resolve, random() * 600))
        }
        ending.abort()
      }
      await Promise.all([write(), disturb()])
      bad.clear()
      faults = 0
      const [projection] = running
      const [last] = await events.query({ direction: 'backward', limit: 1 })
      const isDone = async (): Promise<boolean> => {
        const { position } = (await projection!.status()) ?? {}
        const parked = await projection!.parked.list()
        const forgotten = parked.filter(({ request }) => request === null)
        if (forgotten.length > 0) await projection!.parked.retry({ ids: forgotten.map(({ id }) => id) }).catch(() => 0)
        return parked.length === 0 && BigInt(position ?? 0) >= BigInt(last!.position)
      }
      await eventually(isDone, { timeoutMs: 60_000, intervalMs: 200, what: 'all has gone through' })

      const applied = await database().query<{ stream: string; version: number }>(
        'select stream, version from applied order by place',
      )
      const names = applied.map(({ stream, version }) => `${stream} ${version}`)
      expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
      const lost = (await events.query({})).map(({ stream, version }) => `${stream} ${version}`)
      expect(lost.filter((name) => !names.includes(name) && !unwanted.has(name))).toEqual([])
      const turned = applied.filter(({ stream, version }, index) =>
        applied.slice(0, index).some((before) => before.stream === stream && before.version > version),
      )
      expect(turned).toEqual([])
    },
  )
})
