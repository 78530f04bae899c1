import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

const example = fileURLToPath(new URL('../../examples/order-history.ts', import.meta.url))

describeEachPostgres('examples/order-history.ts', (server) => {
  const database = useDatabase(server)

  // It throws where something is not as it says. Twice: the second time the schema and another order are there.
  test('runs through, checks itself and ends', async () => {
    for (let run = 0; run < 2; run += 1) {
      const { stdout } = await promisify(execFile)(process.execPath, [example], {
        env: { ...process.env, DATABASE_URL: database().url },
      })
      expect(stdout).toMatch(/two writers: Stream order-\S+ is at version 3, expected 2/)
      expect(stdout).toContain('now it is shipped (version 7), yesterday it was open (version 6)')
      expect(stdout).toContain("rebuilt while it served: { status: 'shipped', items: 6 }")
      expect(stdout).toMatch(/all as expected\n$/)
    }
  })
})
