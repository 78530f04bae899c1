import { expect, test } from 'vitest'
import { install } from '../log/captured.ts'
import {
  createDatabase,
  describeEachVersion,
  eventually,
  ownCluster,
  startTcpProxy,
  terminateBackends,
  type TestDatabase,
} from '../support/index.ts'
import {
  outcomeOf,
  pace,
  prepareArrivals,
  type RelayProcess,
  startRelayProcess,
  untilAllArrived,
  Writers,
} from './processes.ts'
import { open } from './relaying.ts'

/** Rounds of each fault; the campaign in CI asks for more. */
const rounds = Number(process.env['TRUNKLINE_TEST_FAULTS'] ?? 2)

const relay = { name: 'campaign', topics: ['order'], leaseMs: 1_200, checkpointIntervalMs: 50, retryFirstMs: 50 }

describeEachVersion('relay: faults under load', (version) => {
  test(
    'killed, cut off, terminated, and the server stopped at once: nothing lost, nothing out of order',
    { timeout: 120_000 + rounds * 120_000, retry: 0 },
    async () => {
      await using cluster = await ownCluster(version)
      await using database = await createDatabase(cluster.server)
      await install(database.url)
      await prepareArrivals(database, 40)
      await using proxy = await startTcpProxy(database.url)
      const options = { url: proxy.through(database.url), arrivalUrl: database.url, relay, batchSizeMax: 10 }
      const processes: RelayProcess[] = [await startRelayProcess(options), await startRelayProcess(options)]
      const writers = new Writers(database.url, 4, 5)
      const pacing = pace(writers, database, () => arrivedCount(database))
      const moreArrives = async (what: string): Promise<void> => {
        let before: number | undefined
        await eventually(
          async () => {
            const count = await arrivedCount(database)
            before ??= count
            return count - before > 50
          },
          { what: `after ${what} events arrive again`, timeoutMs: 60_000, intervalMs: 100 },
        )
      }
      await moreArrives('the start')
      for (let round = 0; round < rounds; round += 1) {
        processes.shift()!.kill('SIGKILL')
        processes.push(await startRelayProcess(options))
        await moreArrives('a kill')

        await terminateBackends(database, { where: "application_name like 'trunkline relay%'" })
        await moreArrives('pg_terminate_backend')

        await proxy.cut()
        await eventually(() => proxy.connectionCount === 0, { what: 'connections are cut' })
        await proxy.resume()
        proxy.stall()
        const stalledAt = performance.now()
        // Longer than the lease: both find that they may own nothing any more.
        await eventually(() => performance.now() - stalledAt > 2_000, { what: 'the lease is over', intervalMs: 100 })
        await proxy.resume()
        await moreArrives('a stalled network')

        await cluster.postgres.stop('immediate')
        await cluster.postgres.start()
        await moreArrives('an immediate stop')
      }
      await writers.stop()
      await pacing.stop()
      const { inbox } = open(database.url)
      await untilAllArrived(database, 60_000)
      const outcome = await outcomeOf(database)
      expect(outcome).toMatchObject({ lost: 0, outOfOrder: 0 })
      expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
      // A consumer with an inbox handles each once, however often it arrived.
      const arrived = await database.query<{ message_id: string }>('select message_id from arrival order by id')
      const consumer = await database.connect()
      let handled = 0
      for (const { message_id: messageId } of arrived) {
        await consumer.query('begin')
        await inbox.once(consumer, 'campaign', messageId, () => (handled += 1))
        await consumer.query('commit')
      }
      expect(handled).toBe(outcome.events)
      for (const child of processes) {
        child.kill('SIGTERM')
        await child.ended()
      }
      expect(await database.query('select from trunkline.relay_slot where owner is not null')).toEqual([])
    },
  )
})

/** Events that have arrived, each counted once. */
async function arrivedCount(database: TestDatabase): Promise<number> {
  const [row] = await database.query<{ n: number }>('select count(distinct message_id)::integer as n from arrival')
  return row!.n
}
