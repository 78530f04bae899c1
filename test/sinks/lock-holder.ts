/** A process of its own for file-lock.test.ts: takes the lock that its argument names, says so, and keeps it. */
import { lock } from '../../src/sinks/file-lock.ts'

await using _held = await lock(process.argv[2] ?? '', new AbortController().signal)
process.stdout.write('held\n')
await new Promise((resolve) => {
  setTimeout(resolve, 60_000)
})
