import { expect, test } from 'vitest'
import { Listener } from '../../src/log/listener.ts'
import { recordingLogger, type RecordingLogger } from '../cache/cached.ts'
import {
  describeEachPostgres,
  eventually,
  findBackends,
  lacksPgBouncer,
  startPgBouncer,
  startTcpProxy,
  terminateBackends,
  type TestDatabase,
  untilBackends,
  useDatabase,
} from '../support/index.ts'

interface Heard {
  notifications: number
  ups: number
  downs: number
}

const listening = { where: "application_name = 'trunkline listen'" }

describeEachPostgres('the listener', (server) => {
  const database = useDatabase(server)

  function create(
    url: string,
    notifyOver: Pick<TestDatabase, 'query'> = database(),
  ): { listener: Listener; heard: Heard; logger: RecordingLogger } {
    const logger = recordingLogger()
    const heard = { notifications: 0, ups: 0, downs: 0 }
    const listener = new Listener({
      config: () => ({ connectionString: url }),
      channel: 'trunkline_test',
      logger,
      notify: async (channel, payload) => void (await notifyOver.query('select pg_notify($1, $2)', [channel, payload])),
      onNotification: () => (heard.notifications += 1),
      onUp: () => (heard.ups += 1),
      onDown: () => (heard.downs += 1),
    })
    return { listener, heard, logger }
  }

  test('hears what is sent to its channel with no payload, and nothing else', async () => {
    const { listener, heard, logger } = create(database().url)
    await listener.start()
    await listener.start()
    expect([listener.isUp, heard.ups]).toEqual([true, 1])
    await database().query("notify other_channel; notify trunkline_test, 'the self-test of another process'")
    await database().query('notify trunkline_test')
    await eventually(() => heard.notifications > 0)
    expect(heard).toEqual({ notifications: 1, ups: 1, downs: 0 })
    await listener.stop()
    await listener.stop()
    expect([listener.isUp, heard.downs, logger.lines]).toEqual([false, 0, []])
    await untilBackends(database(), listening, (count) => count === 0)
  })

  test('its backend is terminated: one line, and it listens again with one connection', async () => {
    const { listener, heard, logger } = create(database().url)
    await listener.start()
    for (let round = 1; round <= 3; round += 1) {
      await terminateBackends(database(), listening)
      await eventually(() => heard.ups === round + 1 && listener.isUp, { what: 'it listens again' })
      expect(await findBackends(database(), listening)).toHaveLength(1)
      await database().query('notify trunkline_test')
      await eventually(() => heard.notifications === round)
    }
    expect(heard.downs).toBe(3)
    expect(logger.of('info')).toHaveLength(3)
    expect(logger.of('warn')).toEqual([])
    await listener.stop()
    await untilBackends(database(), listening, (count) => count === 0)
  })

  test('its backend is terminated during the self-test: that is no silence, it tries again at once', async () => {
    let terminated = 0
    const { listener, logger } = create(database().url, {
      query: async (text: string, values: unknown[]) => {
        if (terminated > 0) return database().query(text, values)
        terminated += 1
        await terminateBackends(database(), listening)
        return []
      },
    })
    await listener.start()
    expect(listener.isUp).toBe(false)
    await eventually(() => listener.isUp, { what: 'it listens', timeoutMs: 10_000 })
    expect(terminated).toBe(1)
    expect(logger.of('warn')).toEqual([expect.not.stringContaining('did not arrive') as string])
    await listener.stop()
  })

  test('nobody answers: start does not fail, one line is enough, and it listens when somebody does', async () => {
    await using proxy = await startTcpProxy(database().url)
    await proxy.cut()
    const { listener, heard, logger } = create(proxy.url)
    await listener.start()
    expect(listener.isUp).toBe(false)
    await eventually(() => heard.downs >= 3, { what: 'it tries again' })
    expect(logger.of('warn')).toHaveLength(1)
    expect(logger.of('warn')[0]).toMatch(/^LISTEN does not work, polling instead: /)
    await proxy.resume()
    await eventually(() => listener.isUp, { what: 'it listens' })
    await listener.stop()
  })

  test('stopped while it connects, reconnects or hangs: soon, and no connection is left', async () => {
    await using proxy = await startTcpProxy(database().url)
    for (const fault of ['none', 'reset', 'stall', 'cut'] as const) {
      const { listener } = create(proxy.url)
      const starting = listener.start()
      if (fault === 'none') {
        await Promise.all([starting, listener.stop()])
        continue
      }
      await starting
      if (fault === 'reset') proxy.reset()
      else if (fault === 'stall') proxy.stall()
      else await proxy.cut()
      const begun = performance.now()
      await listener.stop()
      expect(performance.now() - begun).toBeLessThan(3_000)
      await proxy.resume()
      await untilBackends(database(), listening, (count) => count === 0).catch((error: unknown) => {
        throw new Error(`after ${fault}`, { cause: error })
      })
    }
  })

  test.skipIf(lacksPgBouncer())('a pooler swallows notifications: the self-test tells', async () => {
    await using pooler = await startPgBouncer(database())
    const { listener, logger } = create(pooler.url)
    await listener.start()
    expect(listener.isUp).toBe(false)
    expect(logger.of('warn')).toEqual([expect.stringMatching(/did not arrive.*pooler.*listenUrl/) as string])
    await listener.stop()
  })
})
