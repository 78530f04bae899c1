/** A cluster of two workers for file-lock.test.ts: both try the lock that the argument names, and each says how it went. */
import cluster from 'node:cluster'
import { lock } from '../../src/sinks/file-lock.ts'

if (cluster.isPrimary) {
  const first = cluster.fork()
  // The second tries when the first has it, and ends the first when it knows.
  first.once('message', () => {
    cluster.fork().once('exit', () => first.kill())
  })
} else if (cluster.worker?.id === 1) {
  await using _held = await lock(process.argv[2] ?? '', new AbortController().signal)
  process.send?.('held')
  await new Promise((resolve) => {
    setTimeout(resolve, 60_000)
  })
} else {
  const outcome = await lock(process.argv[2] ?? '', AbortSignal.timeout(300)).then(
    () => 'held by both',
    () => 'kept out',
  )
  process.stdout.write(outcome, () => cluster.worker?.kill())
}
