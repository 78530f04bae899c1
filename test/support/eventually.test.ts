import { expect, test } from 'vitest'
import { eventually, eventuallyPasses } from './index.ts'

test('eventually returns the first truthy value', async () => {
  let looks = 0
  expect(await eventually(() => ((looks += 1) === 3 ? 'there' : undefined))).toBe('there')
})

test('eventually fails at its deadline with what it saw last, also when the condition hangs', async () => {
  await expect(eventually(() => 0, { timeoutMs: 30, what: 'it is one' })).rejects.toThrow(
    /within 30 ms it is one; last it was 0/,
  )
  await expect(eventually(() => new Promise(() => {}), { timeoutMs: 30 })).rejects.toThrow(/within 30 ms/)
  await expect(eventuallyPasses(() => expect(1).toBe(2), { timeoutMs: 30 })).rejects.toThrow(/last it failed with/)
})
