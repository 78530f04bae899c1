import { DatabaseError } from 'pg'
import { afterEach, expect, test, vi } from 'vitest'
import { TrunklineError } from '../../src/core/index.ts'
import { retryWhileLocked } from '../../src/postgres/index.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

function locked(): Error {
  const error = new DatabaseError('canceling statement due to lock timeout', 0, 'error')
  error.code = '55P03'
  return error
}

test('a clock that jumps neither ends the trying nor prolongs it', async () => {
  const clock = vi.spyOn(Date, 'now')
  for (const jumpMs of [86_400_000, -86_400_000]) {
    const now = performance.timeOrigin + performance.now()
    let calls = 0
    const action = async (): Promise<number> => {
      calls += 1
      clock.mockReturnValue(now + calls * jumpMs)
      if (calls < 3) throw locked()
      return calls
    }
    expect(await retryWhileLocked(action, { timeoutMs: 5_000 })).toBe(3)
    const never = async (): Promise<never> => {
      clock.mockReturnValue(now + jumpMs)
      throw new TrunklineError('locked', { code: 'table_locked', cause: locked() })
    }
    const started = performance.now()
    await expect(retryWhileLocked(never, { timeoutMs: 200 })).rejects.toThrow('locked')
    expect(performance.now() - started).toBeLessThan(2_000)
  }
})
