import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { type DemoEvent } from '../../src/cli/demo/events.ts'

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
/** A machine that runs other tests beside it; alone it takes a tenth of it. */
const timeoutMs = 240_000

interface Run {
  readonly exitCode: number | null
  /** One for each line of standard output. */
  readonly events: readonly DemoEvent[]
  /** Temporary files that are still there. */
  readonly left: readonly string[]
}

/** The events of one kind. */
type Told<Name extends DemoEvent['event']> = Extract<DemoEvent, { readonly event: Name }>

test(
  'demo --once --json runs through, finds every instance equal after every fault, and leaves nothing behind',
  { timeout: timeoutMs },
  async () => {
    const { exitCode, events, left } = await runDemo()
    const told = <Name extends DemoEvent['event']>(name: Name): Told<Name>[] =>
      events.filter((event): event is Told<Name> => event.event === name)

    expect(told('violation')).toEqual([])
    expect(told('difference')).toEqual([])
    expect(told('instance').filter(({ isRestart }) => !isRestart)).toHaveLength(5)
    expect(told('instance').filter(({ isRestart }) => isRestart)).toHaveLength(1)
    for (const { rows, copyMs, bytesPerRow } of told('instance')) {
      expect(rows).toBeGreaterThan(170_000)
      expect(copyMs).toBeGreaterThan(0)
      expect(bytesPerRow).toBeGreaterThan(50)
    }
    expect(told('fault').map(({ fault }) => fault)).toEqual([
      'listeners-terminated',
      'instance-killed',
      'database-restarted',
      'receiver-killed',
    ])
    const [, , restarted, killed] = told('fault')
    expect(restarted?.details).toMatchObject({ answeredWhileDown: 5 })
    // The receiver that is away holds up its own relay, and not the one to the file.
    expect(killed?.details['waitedForWebhook']).toBeGreaterThan(killed?.details['waitedForFile'] ?? 0)
    expect(told('check').map(({ after }) => after)).toEqual([
      'changes',
      'listeners-terminated',
      'instance-killed',
      'database-restarted',
      'receiver-killed',
    ])
    for (const { instances, rows, differences } of told('check')) {
      expect({ instances, differences }).toEqual({ instances: 5, differences: 0 })
      expect(rows).toBeGreaterThan(171_000)
    }

    expect(told('order-check')).toHaveLength(5)
    for (const { orders, differences, billed, webhook, file } of told('order-check')) {
      expect(orders).toBeGreaterThan(0)
      expect(differences).toBe(0)
      expect(billed).toEqual({ orders, wrong: 0, outOfOrder: 0 })
      for (const arrived of [webhook, file]) expect(arrived).toMatchObject({ lost: 0, invented: 0, outOfOrder: 0 })
    }
    expect(told('order-check').at(-1)?.rollbacks).toBeGreaterThan(0)

    const committed = told('change').filter(({ end }) => end === 'commit')
    for (const { visibleMs } of committed) expect(visibleMs.map(({ instance }) => instance)).toEqual([1, 2, 3, 4, 5])
    expect(committed.flatMap(({ visibleMs }) => visibleMs).every(({ ms }) => ms !== null && ms > 0)).toBe(true)

    const [result] = told('result')
    expect(result).toMatchObject({
      isEqual: true,
      instances: 5,
      transactions: committed.length,
      faults: 4,
      checks: 5,
      differences: 0,
      violations: 0,
    })
    expect(result?.rollbacks).toBeGreaterThan(0)
    expect(result?.latencyMs.p50).toBeLessThanOrEqual(result?.latencyMs.p99 ?? 0)
    for (const { orders, ms } of [result?.webhook, result?.file].flatMap((arrived) => arrived ?? [])) {
      expect(orders).toBe(result?.orders)
      expect(ms.p50).toBeGreaterThan(0)
    }
    expect(exitCode).toBe(0)

    for (const { pid: instance } of told('instance')) expect(isAlive(instance)).toBe(false)
    expect(left).toEqual([])
  },
)

test('demo --once ends at once on SIGINT, with exit code 0 and nothing left', { timeout: timeoutMs }, async () => {
  const { exitCode, events, left } = await runDemo((event, interrupt) => {
    if (event.event === 'loaded') interrupt()
  })
  expect(events.map(({ event }) => event)).toContain('loaded')
  expect(events.map(({ event }) => event)).not.toContain('check')
  expect(left).toEqual([])
  expect(exitCode).toBe(0)
})

/** One run, with a directory for temporary files of its own; `onEvent` may interrupt it. */
async function runDemo(onEvent: (event: DemoEvent, interrupt: () => void) => void = () => undefined): Promise<Run> {
  const home = await mkdtemp(join(tmpdir(), 'trunkline-demo-test-'))
  await chmod(home, 0o755)
  const child = spawn(process.execPath, [program, 'demo', '--once', '--json'], {
    env: { ...process.env, TMPDIR: home },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit') as Promise<[number | null]>
  const events: DemoEvent[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as DemoEvent
    events.push(event)
    onEvent(event, () => child.kill('SIGINT'))
  }
  const [exitCode] = await ended
  const left = (await readdir(home)).filter((name) => name.startsWith('trunkline'))
  await rm(home, { recursive: true })
  return { exitCode, events, left }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
