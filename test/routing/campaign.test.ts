import { writeFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { Trunkline } from '../../src/index.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { Faults } from './campaign-faults.ts'
import { Findings, Trouble, Worker } from './campaign-load.ts'
import { errorOf, portOf, route, startFleet, untilServing } from './fleet.ts'

/** Pairs of a write and a read with its token. The whole campaign is 100,000. */
const pairs = Number(process.env['TRUNKLINE_TEST_PAIRS'] ?? 2_000)
const workers = 12
/** A request must be over by then, whatever happens to the servers. */
const timeoutMs = 6_000
const slackMs = 5_000

describeEachVersion('a campaign of writes and reads with their tokens, while servers fail', (version) => {
  test(`${pairs} pairs`, { timeout: 240_000 + pairs * 30, retry: 0 }, async () => {
    await using fleet = await startFleet(version, 2)
    await fleet.database.query('create table pair (worker integer primary key, n integer not null)')
    await fleet.database.query('create table written (worker integer, n integer, primary key (worker, n))')
    await fleet.database.query(`insert into pair select w, 0 from generate_series(1, ${workers}) as w`)
    // So that a standby can tell its timeline as soon as it follows a new one (docs/routing.md).
    await fleet.database.adminQuery('grant pg_read_all_stats to app_owner')
    await fleet.caughtUp()
    await using routed = await route(fleet, {
      routing: { waitTimeoutMs: 100, timeoutMs, acquireTimeoutMs: 3_000, fallbackMax: 20, poolSizeMax: 20 },
    })
    const { trunkline } = routed
    await untilServing(trunkline, 2)
    await using slonik = await trunkline.routing.slonik({ maxPoolSize: 20 })

    const findings = new Findings()
    const trouble = new Trouble()
    const faults = new Faults({ fleet, trunkline, findings, trouble, spell: Math.min(1_000, Math.ceil(pairs / 50)) })
    let isOver = false
    const running = Promise.all(
      Array.from({ length: workers }, async (_, place) =>
        new Worker({ trunkline, slonik }, place + 1, findings).run(trouble, () => isOver),
      ),
    )
    try {
      while (findings.pairs < pairs * 0.75 || !faults.hasHadAll) await faults.next()
      await faults.failOver()
      const since = findings.pairs
      await eventually(() => findings.pairs >= Math.max(pairs, since + 200), { timeoutMs: 60_000 + pairs * 10 })
    } finally {
      isOver = true
    }
    await running

    // Traffic is back on the replica that is left, and the primary gets none.
    await eventually(() => serving(trunkline) === 1, { what: 'the standby that is left serves', timeoutMs: 30_000 })
    const [promoted, left] = fleet.standbys.map(({ postgres }) => postgres.port)
    for (let read = 0; read < 100; read += 1) expect(await trunkline.read(portOf)).toBe(left)

    const losses = await lookForLosses(trunkline, findings)
    const { decisions } = trunkline.routing.status()
    const { written: _written, ...figures } = findings
    await report({ version, ...figures, losses, faults: faults.told, decisions })
    expect(findings.stale).toEqual([])
    expect(findings.failures).toEqual([])
    expect(findings.longestMs).toBeLessThan(timeoutMs + slackMs)
    // No write went to a standby.
    expect(decisions.filter(({ intent, target }) => intent === 'write' && target === 'replica')).toEqual([])
    expect(Object.keys(findings.writtenOn).toSorted()).toEqual(
      [String(fleet.primary.postgres.port), String(promoted)].toSorted(),
    )
    // Each is there that resolved after the fail-over; of those before it each is there, or told to be lost.
    const { rows } = await trunkline.write(async (tx) => tx.query<Row>('select worker, n from pair order by worker'))
    expect(Object.fromEntries(rows.map(({ worker, n }) => [worker, n]))).toEqual(findings.last)
    expect(losses.untold).toEqual([])
    expect(losses.lost).toBeGreaterThan(0)
    // The campaign was one: replicas served tokens, and not always.
    const countOf = (reason: string): number =>
      decisions.filter((each) => each.reason === reason).reduce((sum, { count }) => sum + count, 0)
    expect(countOf('token')).toBeGreaterThan(pairs / 10)
    expect(countOf('token-not-reached') + countOf('unavailable') + countOf('node-failed')).toBeGreaterThan(0)
  })
})

interface Row {
  readonly worker: number
  readonly n: number
}

interface Losses {
  /** Writes that had resolved and are not there. */
  readonly lost: number
  /** Those of which a read with their token says nothing. */
  readonly untold: readonly string[]
  /** Reads with a token of a write that is there: seen, and told to be lost since others moved the token beyond it. */
  readonly seen: number
  readonly toldThoughThere: number
}

/** What resolved and is not there must be told by every read with its token. */
async function lookForLosses(trunkline: Trunkline, { written }: Findings): Promise<Losses> {
  const { rows } = await trunkline.write(async (tx) => tx.query<Row>('select worker, n from written'))
  const there = new Set(rows.map(({ worker, n }) => `${worker}/${n}`))
  const isThere = ({ worker, n }: Row): boolean => there.has(`${worker}/${n}`)
  const lost = written.filter((each) => !isThere(each))
  const untold: string[] = []
  for (const { worker, n, token } of lost) {
    const { code } = await errorOf(trunkline.read(portOf, { after: token }))
    if (code !== 'write_lost') untold.push(`${worker}/${n} ${token}: ${String(code)}`)
  }
  const kept = written.filter(isThere)
  let seen = 0
  let toldThoughThere = 0
  // Every so many, and those around the fail-over.
  const first = written.findIndex((each) => !isThere(each))
  const near = written.slice(Math.max(0, first - 300), first + 300)
  for (const { worker, n, token } of [...kept.filter((_, place) => place % 100 === 0), ...near.filter(isThere)]) {
    try {
      const found = await trunkline.read(
        async (tx) => tx.query('select from written where worker = $1 and n = $2', [worker, n]),
        { after: token },
      )
      if (found.rowCount === 1) seen += 1
      else untold.push(`${worker}/${n} ${token}: not seen`)
    } catch (error) {
      if ((error as { code?: string }).code !== 'write_lost') throw error
      toldThoughThere += 1
    }
  }
  return { lost: lost.length, untold, seen, toldThoughThere }
}

function serving(trunkline: Trunkline): number {
  return trunkline.routing.status().nodes.filter(({ role, state }) => role === 'replica' && state === 'serving').length
}

/** For whoever runs the whole campaign: its figures, in the file that TRUNKLINE_TEST_REPORT names. */
async function report(facts: { readonly version: string } & Readonly<Record<string, unknown>>): Promise<void> {
  const file = process.env['TRUNKLINE_TEST_REPORT']
  if (file !== undefined) await writeFile(`${file}.${facts.version}.json`, `${JSON.stringify(facts, undefined, 2)}\n`)
}
