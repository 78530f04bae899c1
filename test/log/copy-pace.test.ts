import { expect, test } from 'vitest'
import { CopyPace } from '../../src/log/copy-pace.ts'

test('pages grow while they are quick, shrink when they are slow, and begin anew with one row', () => {
  const pace = new CopyPace()
  for (let page = 0; page < 10; page += 1) pace.took(10)
  expect(pace.rows).toBe(5_000)
  pace.took(1_000)
  expect(pace.rows).toBe(5_000)
  pace.took(3_000)
  expect(pace.rows).toBe(1_250)
  expect(pace.failed()).toBe(true)
  expect(pace.rows).toBe(1)
  // A single row has more time; there is nothing smaller.
  expect(pace.failed()).toBe(false)
  pace.took(5_000)
  expect(pace.rows).toBe(1)
  pace.took(10)
  expect(pace.rows).toBe(2)
})
