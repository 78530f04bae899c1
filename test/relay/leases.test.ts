import { expect, test } from 'vitest'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { outcomeOf, prepareArrivals, startRelayProcess, untilAllArrived, Writers } from './processes.ts'
import { emitMany, open, prepareDatabase, quick, RecordingSink } from './relaying.ts'

const relay = { name: 'shared', topics: ['order'], leaseMs: 1_500, checkpointIntervalMs: 50, retryFirstMs: 50 }

describeEachPostgres('relay: several processes', (server) => {
  test('two share the keys, hand over without repeating, and each key has one at a time', async () => {
    const database = await prepareDatabase(server)
    const seen: string[] = []
    const sinks = [0, 1, 2].map(
      () =>
        new RecordingSink({
          judge: async ({ key }) => {
            // Over all processes: one call for a key at a time.
            if (seen.includes(key!)) throw new Error(`two at once for ${key}`)
            seen.push(key!)
            await new Promise((resolve) => setTimeout(resolve, 1))
            seen.splice(seen.indexOf(key!), 1)
            return undefined
          },
        }),
    )
    const relays = sinks.map((sink) => open(database.url).relay(quick({ sink, leaseMs: 3_000 })))
    await relays[0]!.start()
    expect(relays[0]!.slots).toHaveLength(16)
    const emitting = (async () => {
      for (let n = 0; n < 30; n += 1) await emitMany(database, 200, 40)
    })()
    await relays[1]!.start()
    await relays[2]!.start()
    await eventually(() => relays.every(({ slots }) => slots.length === 5 || slots.length === 6), {
      what: 'evenly shared',
    })
    await emitting
    await relays[0]!.stop()
    await eventually(() => relays[1]!.slots.length === 8 && relays[2]!.slots.length === 8, {
      what: 'the two share what is left',
    })
    await emitMany(database, 200, 40)
    await relays[1]!.drained()
    const all = sinks.flatMap(({ confirmed }) => confirmed)
    expect(all).toHaveLength(6_200)
    expect(new Set(all.map(({ messageId }) => messageId)).size).toBe(6_200)
    expect(sinks.every(({ confirmed }) => confirmed.length > 0)).toBe(true)
  })

  test('kill -9: another one takes over within the lease, nothing is lost or out of order', async () => {
    const database = await prepareDatabase(server)
    await prepareArrivals(database, 30)
    const options = { url: database.url, arrivalUrl: database.url, relay, batchSizeMax: 20 }
    const first = await startRelayProcess(options)
    const second = await startRelayProcess(options)
    await eventually(() => first.slots.length === 8 && second.slots.length === 8, { what: 'evenly shared' })
    const writers = new Writers(database.url, 4, 5)
    await eventually(async () => (await outcomeOf(database)).events > 100, { what: 'writers write' })
    first.kill('SIGKILL')
    const killedAt = performance.now()
    await eventually(() => second.slots.length === 16, { what: 'the other takes over' })
    expect(performance.now() - killedAt).toBeLessThan(1_500 + 1_500)
    await writers.stop()
    await untilAllArrived(database)
    expect(await outcomeOf(database)).toMatchObject({ lost: 0, outOfOrder: 0 })
    // What may have been in flight was counted while it was delivered again, and is forgotten when it is through.
    await eventually(
      async () => (await database.query('select from trunkline.relay_slot where suspect')).length === 0,
      {
        what: 'no slot is suspect any more',
      },
    )
    expect(await database.query('select from trunkline.relay_mark')).toEqual([])
  })

  test('SIGSTOP: a process that comes back finds its lease over, and delivers nothing that is another one’s', async () => {
    const database = await prepareDatabase(server)
    await prepareArrivals(database, 30)
    const options = { url: database.url, arrivalUrl: database.url, relay, batchSizeMax: 5, callMs: 2 }
    const first = await startRelayProcess(options)
    const second = await startRelayProcess(options)
    await eventually(() => first.slots.length === 8 && second.slots.length === 8, { what: 'evenly shared' })
    const writers = new Writers(database.url, 4, 5)
    await eventually(async () => (await outcomeOf(database)).events > 100, { what: 'writers write' })
    first.kill('SIGSTOP')
    await eventually(() => second.slots.length === 16, { what: 'the other takes over' })
    const [before] = await database.query<{ last: string; at: Date }>(
      'select max(id) as last, clock_timestamp() as at from arrival where pid = $1',
      [first.pid],
    )
    await eventually(async () => (await outcomeOf(database)).events > 400, { what: 'writers write on' })
    first.kill('SIGCONT')
    await eventually(() => first.slots.length === 8 && second.slots.length === 8, {
      what: 'shared again',
      timeoutMs: 15_000,
    })
    await writers.stop()
    await untilAllArrived(database)
    expect(before).toBeDefined()
    expect(await outcomeOf(database)).toMatchObject({ lost: 0, outOfOrder: 0 })
    // But for calls that were under way when it was stopped, no delivery began in one while one of the same key ran in the other.
    const [overlap] = await database.query<{ n: number }>(
      `select count(*)::integer as n from arrival as a join arrival as b on b.key = a.key and b.pid <> a.pid
         and b.started_at > a.started_at and b.started_at < a.ended_at
       where not (a.pid = $1 and a.started_at < $2) and not (b.pid = $1 and b.started_at < $2)`,
      [first.pid, before!.at],
    )
    expect(overlap!.n).toBe(0)
  })

  test('a delivery that kills its process is counted, and becomes a dead letter', async () => {
    const database = await prepareDatabase(server)
    await prepareArrivals(database, 5)
    const options = {
      url: database.url,
      arrivalUrl: database.url,
      relay: { ...relay, leaseMs: 600, attemptsMax: 3 },
      batchSizeMax: 10,
    }
    await database.query(
      `select trunkline.emit('order', 'k' || (n % 5 + 1), 'happened', case when n = 12 then '{"n": 3, "kill": true}' else jsonb_build_object('n', n / 5 + 1) end)
       from generate_series(0, 24) as n`,
    )
    let processes = 0
    for (;;) {
      processes += 1
      const child = await startRelayProcess(options)
      const isOver = await eventually(
        async () =>
          child.hasEnded || (child.said.some((object) => object['dead'] !== undefined) && (await endedCount()) === 24),
        { what: 'it dies, or all have arrived', timeoutMs: 20_000 },
      )
      expect(isOver).toBe(true)
      if (!child.hasEnded) {
        expect(child.said).toContainEqual({ dead: 'process_died', attempts: expect.any(Number) as number })
        child.kill('SIGTERM')
        await child.ended()
        break
      }
      expect(processes).toBeLessThan(6)
    }
    async function endedCount(): Promise<number> {
      const rows = await database.query('select distinct message_id from arrival where ended_at is not null')
      return rows.length
    }
    const letters = await database.query('select key, state, error_code from trunkline.failed_delivery')
    expect(letters).toEqual([{ key: 'k3', state: 'dead', error_code: 'process_died' }])
    // Everything else was confirmed, in its order.
    expect(await outcomeOf(database)).toMatchObject({ lost: 0, outOfOrder: 0 })
  })
})
