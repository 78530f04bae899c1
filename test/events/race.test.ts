import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTrunkline, type ExpectedVersion } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

/** How often two writers race for one version, in each mode. */
const racesMax = Number(process.env['TRUNKLINE_TEST_RACES'] ?? 200)

describeEachPostgres('two writers of one version', (server) => {
  const database = useDatabase(server)

  beforeAll(() => install(database().url))

  const event = { type: 'won', payload: null }
  type Mode = 'number' | 'no-stream' | 'zero' | 'stream-exists' | 'any'

  test.each<Mode>(['number', 'no-stream', 'zero', 'stream-exists', 'any'])(
    `expecting %s: as many win as may, ${racesMax} times`,
    { retry: 0, timeout: 60_000 + racesMax * 30 },
    async (mode) => {
      const stores = [0, 1].map(() => {
        const trunkline = createTrunkline({ url: database().url })
        onTestFinished(() => trunkline.stop())
        return trunkline.events
      })
      const isNew = mode === 'no-stream' || mode === 'zero'
      const stream = `race-${mode}`
      const first = await stores[0]!.append(stream, 'any', event)
      let { version } = first
      for (let race = 0; race < racesMax; race += 1) {
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
          expect(lost).toMatchObject([{ code: 'version_conflict', stream: target, expected, actual: won[0]?.version }])
          expect(won[0]?.fromVersion).toBe(before + 1)
        }
        version = Math.max(...won.map((result) => result.version))
      }
      const [holes] = await database().query<{ count: string }>(
        `select count(*) from (
          select from trunkline.event where aggregate_type = 'race' group by aggregate_id having max(version) <> count(*)
        ) as s`,
      )
      expect(holes?.count).toBe('0')
    },
  )
})
