import { expect, test } from 'vitest'
import { MarkQueue } from '../../src/relay/mark-queue.ts'
import type { Entry } from '../../src/relay/slot-share.ts'

const entries = (...sequences: number[]): Entry[] => sequences.map((sequence) => ({ sequence }) as Entry)

test('what comes while marks are written goes together, in one statement after it; each learns how that ended', async () => {
  const written: number[][] = []
  const ends: PromiseWithResolvers<boolean>[] = []
  const queue = new MarkQueue(async (batch) => {
    written.push(batch.map(({ sequence }) => sequence))
    const end = Promise.withResolvers<boolean>()
    ends.push(end)
    return end.promise
  })
  const outcomes = [[1, 2], [3]].map(async (batch) => queue.add(entries(...batch)))
  await Promise.resolve()
  await Promise.resolve()
  outcomes.push(queue.add(entries(4)), queue.add(entries(5)))
  expect(written).toEqual([[1, 2, 3]])
  ends[0]?.resolve(true)
  expect(await Promise.all(outcomes.slice(0, 2))).toEqual([true, true])
  expect(written).toEqual([
    [1, 2, 3],
    [4, 5],
  ])
  const failing = outcomes.slice(2).map(async (outcome) => expect(outcome).rejects.toThrow('the connection broke'))
  ends[1]?.reject(new Error('the connection broke'))
  await Promise.all(failing)
  const last = queue.add(entries(6))
  await Promise.resolve()
  await Promise.resolve()
  ends[2]?.resolve(false)
  expect(await last).toBe(false)
  // A batch is never split.
  const large = queue.add(entries(...Array.from({ length: 1_500 }, (_, n) => n)))
  const small = queue.add(entries(7))
  await Promise.resolve()
  await Promise.resolve()
  expect(written[3]).toHaveLength(1_500)
  ends[3]?.resolve(true)
  await large
  ends[4]?.resolve(true)
  expect(await small).toBe(true)
})
