import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type ExpectedVersion } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

/** How often two writers race for one version, in each mode. */
const racesMax = Number(process.env['TRUNKLINE_TEST_RACES'] ?? 200)

/** Races that go on at once, each of a stream of its own. */
const lanes = 7

describeEachPostgres('two writers of one version', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  const event = { type: 'won', payload: null }
  type Mode = 'number' | 'no-stream' | 'zero' | 'stream-exists' | 'any'

  test.each<Mode>(['number', 'no-stream', 'zero', 'stream-exists', 'any'])(
    `expecting %s: as many win as may, ${racesMax} times`,
    { retry: 0, timeout: 60_000 + racesMax * 200 },
    async (mode) => {
      const stores = [0, 1].map(() => {
        const trunkline = createTrunkline({ url: database().url })
        onTestFinished(() => trunkline.stop())
        return trunkline.events
      })
      const isNew = mode === 'no-stream' || mode === 'zero'

      /** The next races, one after the other; those of other lanes go on meanwhile, so that appends come alone and in groups. */
      async function runLane(lane: number): Promise<void> {
        const stream = `race-${mode}-${lane}`
        let { version } = await stores[0]!.append(stream, 'any', event)
        for (let race = lane; race < racesMax; race += lanes) {
          const target = isNew ? `${stream}-${race}` : stream
          const expected: ExpectedVersion = mode === 'number' ? version : mode === 'zero' ? 0 : mode
          const sizes = [1 + (race % 2), 1 + (race % 3)]
          const outcomes = await Promise.allSettled(
            stores.map((store, index) =>
              store.append(
                target,
                expected,
                Array.from({ length: sizes[index]! }, () => event),
              ),
            ),
          )
          const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
          const lost = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []))
          const before = isNew ? 0 : version
          if (mode === 'any' || mode === 'stream-exists') {
            expect(lost).toEqual([])
            expect(won.reduce((sum, { events }) => sum + events.length, before)).toBe(
              Math.max(...won.map((result) => result.version)),
            )
          } else {
            expect(won).toHaveLength(1)
            expect(lost).toMatchObject([
              { code: 'version_conflict', stream: target, expected, actual: won[0]?.version },
            ])
            expect(won[0]?.fromVersion).toBe(before + 1)
          }
          version = Math.max(...won.map((result) => result.version))
        }
      }

      await Promise.all(Array.from({ length: lanes }, async (_, lane) => runLane(lane)))
      const [holes] = await database().query<{ count: string }>(
        `select count(*) from (
          select from trunkline.event where aggregate_type = 'race' group by aggregate_id having max(version) <> count(*)
        ) as s`,
      )
      expect(holes?.count).toBe('0')
    },
  )
})
