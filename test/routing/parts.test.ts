import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { afterFailOver } from '../../src/log/index.ts'
import { choose } from '../../src/routing/balancer.ts'
import { Breaker } from '../../src/routing/breaker.ts'
import { Forks } from '../../src/routing/forks.ts'
import { LagHistory } from '../../src/routing/lag.ts'
import { Limiter } from '../../src/routing/limiter.ts'
import { endOfLastRecord, formatLsn, parseLsn } from '../../src/routing/lsn.ts'
import type { Node } from '../../src/routing/node.ts'
import { untilReplayed } from '../../src/routing/replay.ts'
import { formatToken, laterOf, parseToken, type Position } from '../../src/routing/token.ts'

const segment = 16n * 1024n * 1024n
const lsns = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })

describe('the parts of routing', () => {
  test('LSNs and tokens are read as they are written', () => {
    fc.assert(
      fc.property(lsns, fc.bigInt({ min: 1n, max: 2n ** 63n }), fc.nat(), (lsn, system, timeline) => {
        expect(parseLsn(formatLsn(lsn))).toBe(lsn)
        const position = { systemId: String(system), timeline, lsn }
        expect(parseToken(formatToken(position))).toEqual(position)
      }),
    )
    for (const text of ['', '0', '0/', 'G/0', '0/123456789']) expect(parseLsn(text)).toBeUndefined()
  })

  test('an insert position after nothing but a page header is where the last record ended', () => {
    expect(endOfLastRecord(segment + 40n, segment)).toBe(segment)
    expect(endOfLastRecord(segment + 8_192n + 24n, segment)).toBe(segment + 8_192n)
    // 40 bytes into another page is a record's end.
    expect(endOfLastRecord(segment + 8_192n + 40n, segment)).toBe(segment + 8_192n + 40n)
    fc.assert(
      fc.property(lsns, (lsn) => {
        const end = endOfLastRecord(lsn, segment)
        expect(end === lsn || end % 8_192n === 0n).toBe(true)
      }),
    )
  })

  test('the later position: by timeline, then by LSN, and never lower than either on one timeline', () => {
    const one = { systemId: '1', timeline: 1, lsn: 100n }
    expect(laterOf(undefined, one)).toBe(one)
    expect(laterOf(one, { ...one, lsn: 50n })).toBe(one)
    expect(laterOf(one, { ...one, timeline: 2, lsn: 50n })).toEqual({ ...one, timeline: 2, lsn: 50n })
    expect(laterOf(one, { ...one, systemId: '2', lsn: 1n })).toMatchObject({ systemId: '2' })
  })

  test('what a fail-over lost: beyond the earliest known begin of any later timeline', () => {
    const forks = new Forks()
    const at = (timeline: number, lsn: bigint): Position => ({ systemId: '1', timeline, lsn })
    expect(forks.lossOf(at(1, 500n))).toBeUndefined()
    forks.note(2, 100n)
    // What a crash and its recovery make of it.
    forks.note(2, 900n)
    forks.note(3, undefined)
    expect(forks.lossOf(at(1, 100n))).toBeUndefined()
    expect(forks.lossOf(at(1, 101n))).toEqual(at(2, 100n))
    expect(forks.lossOf(at(2, 101n))).toBeUndefined()
    forks.note(3, 200n)
    expect(forks.lossOf(at(2, 201n))).toEqual(at(3, 200n))
    expect(forks.lossOf(at(1, 150n))).toEqual(at(2, 100n))
  })

  test('a stored position after a fail-over: of the new timeline, if nothing else differs', () => {
    const uuid = 'f7a35cfb-bf26-4bff-6357-99b86c1382b6'
    const text = `1/77-00000001-16386-${uuid}/5:9:6/5:12:/33`
    expect(afterFailOver(text, `77-00000002-16386-${uuid}`)).toBe(`1/77-00000002-16386-${uuid}/5:9:6/5:12:/33`)
    for (const other of [`78-00000002-16386-${uuid}`, `77-00000002-5-${uuid}`, '77-00000002-16386-other', '']) {
      expect(afterFailOver(text, other)).toBe(text)
    }
  })

  test('what a connection has told of its replay is not asked again, but where a pooler is between', async () => {
    const position = { systemId: '1', timeline: 1, lsn: 100n }
    const asks = async (client: object, pid: number, calls: number): Promise<[string[], number]> => {
      let asked = 0
      const ask = async (): Promise<unknown[]> => [true, formatLsn(200n - BigInt(150 * asked++)), 1, pid]
      const found: string[] = []
      for (let call = 0; call < calls; call += 1)
        found.push(await untilReplayed(client, ask, { floor: position, timeline: 1, patienceMs: 0 }))
      return [found, asked]
    }
    expect(await asks({ processID: 7 }, 7, 3)).toEqual([['reached', 'reached', 'reached'], 1])
    // The second transaction meets another server, which has less.
    expect(await asks({ processID: 7 }, 8, 2)).toEqual([['reached', 'not-reached'], 2])
  })

  test('lag: none when level or idle, else since the primary was first seen to have more', () => {
    const history = new LagHistory()
    expect(history.lagOf(5n, 0)).toBeUndefined()
    history.add(100n, 1_000)
    history.add(100n, 60_000)
    expect(history.lagOf(100n, 61_000)).toEqual({ bytes: 0, ms: 0 })
    history.add(150n, 62_000)
    history.add(180n, 63_000)
    expect(history.lagOf(100n, 64_000)).toEqual({ bytes: 80, ms: 2_000 })
    expect(history.lagOf(150n, 64_000)).toEqual({ bytes: 30, ms: 1_000 })
    expect(history.lagOf(200n, 64_000)).toEqual({ bytes: 0, ms: 0 })
    // Asked before the primary: what the primary wrote after it is no lag.
    expect(history.lagOf(100n, 61_999)).toEqual({ bytes: 0, ms: 0 })
    // Another history.
    history.add(10n, 65_000)
    expect(history.lagOf(10n, 66_000)).toEqual({ bytes: 0, ms: 0 })
  })

  test('lag is told in full however often is looked', () => {
    const history = new LagHistory()
    for (let look = 0; look < 20_000; look += 1) history.add(BigInt(1_000 + look), look * 20)
    for (const [lsn, ms] of [
      [1_000n, 400_000],
      [11_000n, 200_000],
      [20_500n, 10_000],
    ] as const) {
      const lag = history.lagOf(lsn, 400_000)?.ms ?? 0
      expect(lag).toBeLessThanOrEqual(ms)
      expect(lag).toBeGreaterThan(ms * 0.85)
    }
  })

  test('the breaker: opens at the third failure in a row, one trial at a time, longer each time', () => {
    let now = 0
    const breaker = new Breaker(() => now)
    breaker.fail()
    breaker.fail()
    breaker.succeed()
    breaker.fail()
    breaker.fail()
    expect([breaker.state, breaker.isPassable]).toEqual(['closed', true])
    breaker.fail()
    // Those that were on their way count once.
    for (let late = 0; late < 20; late += 1) breaker.fail()
    expect([breaker.state, breaker.isPassable]).toEqual(['open', false])
    now = 1_000
    expect([breaker.state, breaker.isPassable]).toEqual(['half-open', true])
    breaker.enter()
    expect([breaker.state, breaker.isPassable]).toEqual(['half-open', false])
    breaker.fail()
    expect(breaker.state).toBe('open')
    now += 999
    expect(breaker.state).toBe('open')
    now += 1_001
    breaker.enter()
    breaker.abandon()
    expect(breaker.isPassable).toBe(true)
    breaker.enter()
    breaker.succeed()
    expect([breaker.state, breaker.isPassable]).toEqual(['closed', true])
  })

  test('two choices: the less busy of two for its weight, by weight when idle', () => {
    const node = (name: string, open: number, weight = 1): Node => ({ name, open, weight }) as Node
    expect(choose([])).toBeUndefined()
    expect(choose([node('a', 9)])?.name).toBe('a')
    for (let round = 0; round < 50; round += 1) {
      expect(choose([node('a', 3), node('b', 2)])?.name).toBe('b')
      expect(choose([node('a', 3, 2), node('b', 2, 1)])?.name).toBe('a')
      // Never the busiest of three.
      expect(choose([node('a', 1), node('b', 2), node('c', 3)])?.name).not.toBe('c')
    }
    const counts = new Map<string, number>()
    for (let round = 0; round < 4_000; round += 1) {
      const name = choose([node('a', 0, 3), node('b', 0, 1)])?.name ?? ''
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    expect(counts.get('a')! / counts.get('b')!).toBeGreaterThan(2)
    expect(counts.get('a')! / counts.get('b')!).toBeLessThan(4.5)
  })

  test('the limiter: so many at a time, the others in line, each for its time', async () => {
    const limiter = new Limiter(2)
    expect(await Promise.all([limiter.enter(10), limiter.enter(10), limiter.enter(10)])).toEqual([true, true, false])
    const waiting = limiter.enter(10_000)
    limiter.leave()
    expect(await waiting).toBe(true)
    expect(limiter.taken).toBe(2)
    limiter.leave()
    limiter.leave()
    expect(limiter.taken).toBe(0)
  })
})
