import { type ViteUserConfig, defineConfig } from 'vitest/config'

const config: ViteUserConfig = defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/global-setup.ts',
    // Each file has a process: a crash or a leaked connection of one stays its own.
    pool: 'forks',
    maxWorkers: 2,
    // Far above what any needs: a deadline that a slow minute of the machine misses tells nothing.
    testTimeout: 90_000,
    // Servers that are killed and networks that are cut have deadlines that a busy machine can miss. CI tries such a test once
    // more and shows that it did; property tests and campaigns say `retry: 0`: a finding of theirs counts at once.
    retry: Number(process.env['TRUNKLINE_TEST_RETRY'] ?? 0),
    hookTimeout: 60_000,
  },
})

export default config
