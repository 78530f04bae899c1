import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text as readAll } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { emitAll, prepareDatabase } from '../relay/relaying.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'
import { main, objectsOf, type Run, trunkline } from './trunkline.ts'

const errorModule = pathToFileURL(join(import.meta.dirname, '..', '..', 'src', 'relay', 'sink.ts')).href

/** A configuration module with a sink that appends to a file, and refuses payloads of { bad: true }. */
async function prepareConfig(): Promise<{ directory: string; config: string; arrived: () => Promise<unknown[]> }> {
  const directory = await mkdtemp(join(tmpdir(), 'trunkline-relay-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const file = join(directory, 'arrived.ndjson')
  const config = join(directory, 'trunkline.config.mjs')
  await writeFile(
    config,
    `import { appendFile } from 'node:fs/promises'
     import { DeliveryError } from ${JSON.stringify(errorModule)}
     const sink = {
       name: 'appending:', batchSizeMax: 50,
       start: async () => undefined, stop: async () => undefined,
       async deliver(batch) {
         const outcomes = []
         for (const { change } of batch) {
           const isBad = change.payload.bad === true && process.env.MENDED === undefined
           if (!isBad) await appendFile(${JSON.stringify(file)}, JSON.stringify(change.payload) + '\\n')
           outcomes.push(isBad ? new DeliveryError('It is bad.', { code: 'receiver_refused', retryable: false }) : undefined)
         }
         return outcomes
       },
     }
     export default { sinks: { mine: sink } }`,
  )
  const arrived = async (): Promise<unknown[]> => {
    const text = await readFile(file, 'utf8').catch(() => '')
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as unknown)
  }
  return { directory, config, arrived }
}

describeEachPostgres('trunkline relay', (server) => {
  test('ends when nobody reads standard output any more: no attempt is counted for it', async () => {
    const database = await prepareDatabase(server)
    await emitAll(database, [
      ['a', { n: 1 }],
      ['b', { n: 2 }],
    ])
    const relay = ['relay', '--name', 'piped', '--topic', 'order', '--sink', 'stdout:', '--url', database.url]
    const child = spawn(process.execPath, [main, ...relay], { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.destroy()
    const [stderr, ended] = await Promise.all([readAll(child.stderr), once(child, 'exit')])
    expect(stderr).toContain('Nobody reads standard output any more.')
    expect(ended).toEqual([1, null])
    expect(await database.query('select from trunkline.failed_delivery')).toEqual([])
    const again = await trunkline([...relay, '--once'])
    expect(again.stdout.trim().split('\n')).toHaveLength(2)
  })

  test('--once delivers what is committed and ends; dead letters are listed, shown, redriven, discarded', async () => {
    const database = await prepareDatabase(server)
    const { config, arrived } = await prepareConfig()
    const run = (args: readonly string[], env: Record<string, string> = {}): Promise<Run> =>
      trunkline([...args, '--url', database.url, '--config', config], { env })
    await emitAll(database, [
      ['a', { n: 1 }],
      ['a', { n: 2, bad: true }],
      ['b', { n: 3 }],
      ['b', { n: 4, bad: true }],
    ])
    const relay = ['relay', '--name', 'cli', '--sink', 'mine', '--topic', 'order', '--once']
    const first = await run([...relay, '--json'])
    expect(first).toMatchObject({ code: 1 })
    expect(objectsOf(first)).toEqual([{ relay: 'cli', delivered: 2, deadLetters: 2 }])
    expect(await arrived()).toHaveLength(2)
    // The dead letters of an earlier run are no failure of this one.
    expect(await run(relay)).toMatchObject({ code: 0 })
    const letters = objectsOf(await run(['dead-letters', 'list', '--json'])).toSorted((x, y) =>
      String(x['key']) < String(y['key']) ? -1 : 1,
    )
    expect(letters).toMatchObject([
      { relay: 'cli', key: 'a', attempts: 1, errorCode: 'receiver_refused', error: 'It is bad.' },
      { relay: 'cli', key: 'b' },
    ])
    const [one, other] = letters.map(({ id }) => String(id))
    expect(objectsOf(await run(['dead-letters', 'show', one!, '--json']))).toMatchObject([
      { id: one, change: { payload: { n: 2, bad: true }, key: 'a' } },
    ])
    expect((await run(['dead-letters', 'show', one!])).stdout).toContain('It is bad.')
    expect((await run(['dead-letters', 'list', '--relay', 'cli'])).stdout).toContain('It is bad.')
    expect(await run(['dead-letters', 'redrive', '999'])).toMatchObject({ code: 1 })
    expect(await run(['dead-letters', 'redrive'])).toMatchObject({ code: 2 })
    expect(await run(['dead-letters', 'redrive', one!])).toMatchObject({ code: 0 })
    expect(await run(relay, { MENDED: '1' })).toMatchObject({ code: 0 })
    expect(await arrived()).toEqual(expect.arrayContaining([{ n: 2, bad: true }]))
    expect(await run(['dead-letters', 'discard', other!, '--json'])).toMatchObject({
      code: 0,
      stdout: '{"discarded":1}\n',
    })
    expect((await run(['dead-letters', 'list'])).stdout).toContain('No dead letters')
    const status = objectsOf(await run(['status', '--json'])).find(({ kind }) => kind === 'relay')
    expect(status).toMatchObject({
      name: 'cli',
      sink: 'appending:',
      processes: [],
      vacantSlots: 16,
      behindRows: 0,
      waiting: 0,
      deadLetters: 0,
    })
    expect((await run(['status'])).stdout).toContain('none runs')
  })

  test('without --once it follows until SIGTERM, and says what is wrong with its options', async () => {
    const database = await prepareDatabase(server)
    const { config, arrived } = await prepareConfig()
    let pid = 0
    const running = trunkline(['relay', '--name', 'cli', '--sink', 'mine', '--url', database.url, '--config', config], {
      onStart: (started) => {
        pid = started
      },
    })
    await emitAll(database, [['a', { n: 1 }]])
    await eventually(async () => (await arrived()).length === 1, { what: 'it arrives', timeoutMs: 20_000 })
    process.kill(pid, 'SIGTERM')
    expect(await running).toMatchObject({ code: 0, stdout: '' })
    const common = ['relay', '--url', database.url, '--config', config]
    expect(await trunkline([...common, '--name', 'x', '--sink', 'carrier-pigeon://roof'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('carrier-pigeon') as string,
    })
    expect(await trunkline([...common, '--name', 'x', '--sink', 'unknown'])).toMatchObject({ code: 2 })
    expect(await trunkline([...common, '--sink', 'mine'])).toMatchObject({ code: 2 })
    expect(await trunkline([...common, '--name', 'x', '--sink', 'mine', '--concurrency', '0'])).toMatchObject({
      code: 2,
    })
    expect(await trunkline([...common, '--name', 'x', '--sink', 'mine', '--from', 'yesterday'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('"yesterday" is no position') as string,
    })
    expect(await trunkline([...common, '--name', 'x', '--sink', 'mine', '--table', 'nowhere'])).toMatchObject({
      code: 2,
    })
  })

  test('SIGTERM while it starts: relay gives up soon; emit, which has emitted nothing, does not end as if it had', async () => {
    const database = await prepareDatabase(server)
    const mute = createServer((socket) => void socket.resume().on('error', () => undefined)).listen(0, '127.0.0.1')
    onTestFinished(() => void mute.close())
    await once(mute, 'listening')
    const { port } = mute.address() as AddressInfo
    const stopWhenConnected = async (args: readonly string[]): Promise<Run & { ms: number }> => {
      let pid = 0
      const running = trunkline(args, { onStart: (started) => (pid = started) })
      await once(mute, 'connection')
      const since = performance.now()
      process.kill(pid, 'SIGTERM')
      return { ...(await running), ms: performance.now() - since }
    }
    const relay = ['relay', '--name', 'x', '--url', database.url]
    const stopped = await stopWhenConnected([...relay, '--sink', `redis://127.0.0.1:${port}/t`])
    expect(stopped).toMatchObject({ code: 0, stdout: '' })
    expect(stopped.ms).toBeLessThan(15_000)
    const emit = ['emit', '--topic', 'order', '--payload', '1', '--url', `postgres://u@127.0.0.1:${port}/db`]
    expect(await stopWhenConnected(emit)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('connection timeout') as string,
    })
  })
})
