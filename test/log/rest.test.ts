import { expect, test } from 'vitest'
import { Rest } from '../../src/log/rest.ts'
import { Session } from '../../src/log/session.ts'
import { WakeUp } from '../../src/log/wake-up.ts'
import { describeEachPostgres } from '../support/index.ts'
import { useTrunklineDatabase } from './captured.ts'

/** As in trunkline.installation. */
const lockClass = 1_953_658_222
/** Of a round on a server that is so busy that any sleep is short against it, in milliseconds. */
const longRoundMs = 60_000

describeEachPostgres('rest between looks', (server) => {
  const database = useTrunklineDatabase(server)

  test('whoever is woken again and again stays awake, until nothing changes for a while', async () => {
    const session = new Session(() => ({ connectionString: database().url }), 'rest')
    await session.connect()
    const wakeUp = new WakeUp('trunkline')
    const rest = new Rest({ session, wakeUp, pollIntervalMs: 20, minIntervalMs: 1 })
    const sleepers = async (): Promise<number> =>
      (await database().query(`select from pg_locks where locktype = 'advisory' and mode = 'ShareLock'`)).length
    const round = { isListening: true, lockClass, wakeKeys: [7] }
    const find = async (hasChanged: boolean, roundMs: number): Promise<void> => {
      // Not so long that the test would wait for it.
      rest.demand()
      await rest.after({ ...round, hasChanged, roundMs })
    }

    for (let time = 0; time < 3; time += 1) {
      await find(false, longRoundMs)
      expect(await sleepers(), `asleep before commit ${time}`).toBe(1)
      await find(true, longRoundMs)
      expect(await sleepers()).toBe(0)
    }
    const changedAt = performance.now()
    await find(false, longRoundMs)
    expect(wakeUp.isAsleep).toBe(false)
    // It looks on, and does not tell writers to notify.
    while (!wakeUp.isAsleep) await rest.after({ ...round, hasChanged: false, roundMs: 1 })
    expect(performance.now() - changedAt).toBeGreaterThan(900)

    // A sleep that was worth it ends it.
    await find(true, 0)
    await find(false, longRoundMs)
    expect(await sleepers()).toBe(1)
    await session.close()
  })
})
