import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { objectsOf, trunkline } from '../cli/trunkline.ts'
import { install } from '../log/captured.ts'
import { describeEachVersion } from '../support/index.ts'
import { type Fleet, nameOf, startFleet } from './fleet.ts'

describeEachVersion('trunkline status, and processes with replicas', (version) => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    await install(fleet.database.url)
    await fleet.caughtUp()
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  const status = async (args: readonly string[], replicaUrls: readonly string[]): ReturnType<typeof trunkline> =>
    trunkline(['status', ...args], {
      env: { DATABASE_URL: fleet.database.url, TRUNKLINE_REPLICA_URLS: replicaUrls.join(',') },
    })

  test('shows the servers, and where a read goes and why', async () => {
    const found = objectsOf(await status(['--json'], fleet.replicaUrls)).slice(-3)
    expect(found).toMatchObject([
      { kind: 'server', name: nameOf(fleet.database.url), role: 'primary', state: 'serving', timeline: 1 },
      { kind: 'server', name: nameOf(fleet.replicaUrls[0]!), role: 'replica', state: 'serving' },
      { kind: 'decision', intent: 'read', target: 'replica', reason: 'replica' },
    ])
    // It may just be replaying what the server writes by itself.
    expect(found[1]).toMatchObject({ lagBytes: expect.any(Number) as number, lagMs: expect.any(Number) as number })
    expect(found[1]?.['lagMs']).toBeLessThan(5_000)
    const { stdout, code } = await status([], fleet.replicaUrls)
    expect(code).toBe(0)
    expect(stdout).toMatch(/SERVER +ROLE +STATE/)
    expect(stdout).toContain(`A read goes to the replica ${nameOf(fleet.replicaUrls[0]!)}: replica`)
  })

  test('a process that has nothing else to do ends by itself, with what it read', async () => {
    const program = `
      const { createTrunkline } = await import(${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)})
      const trunkline = createTrunkline({ url: ${JSON.stringify(fleet.database.url)}, replicaUrls: ${JSON.stringify(fleet.replicaUrls)} })
      await trunkline.write(async (tx) => tx.query('select 1'))
      console.log(await trunkline.read(async (tx) => (await tx.query('select 17 as n')).rows[0].n))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
      timeout: 20_000,
    })
    expect(stdout).toBe('17\n')
  })

  test('one that cannot be reached, one that is no replica, none at all', async () => {
    await fleet.proxies[0]!.cut()
    try {
      expect((await status([], fleet.replicaUrls)).stdout).toMatch(
        /replica +unreachable: .*ECONNREFUSED[^]*A read goes to the primary .*: unavailable/,
      )
    } finally {
      await fleet.proxies[0]!.resume()
    }
    const misfit = await status([], [fleet.primaryProxy.url])
    expect(misfit.stdout).toMatch(/misfit: .*both are the same server[^]*A read goes to the primary .*: unavailable/)
    const wrong = await status([], ['http://example.test'])
    expect(wrong).toMatchObject({ code: 2, stdout: '' })
    const none = await status(['--json'], [])
    expect(objectsOf(none).map(({ kind }) => kind)).not.toContain('server')
  })
})
