import { elapsedMs, nowMs, rounded } from './clock.ts'
import { compareAll } from './comparison.ts'
import { type InstanceLatency } from './events.ts'
import { type Job } from './jobs.ts'
import { type Stage } from './stage.ts'

/** One transaction, and the wait until every instance shows it. */
export async function change(stage: Stage, job: Job): Promise<void> {
  stage.signal.throwIfAborted()
  const witnesses = stage.fleet.running
  const { revision, rows, commitMs } = await stage.writer.run(job)
  const visibleMs: InstanceLatency[] = []
  if (job.end === 'commit') {
    const latencies = await stage.visibility.untilSeen(revision, witnesses, stage.signal)
    for (const [place, { instance }] of witnesses.entries()) {
      const ms = latencies[place]
      visibleMs.push({ instance, ms: ms === undefined ? null : rounded(ms) })
    }
  }
  const { what, size, end } = job
  stage.tell({ event: 'change', revision, what, size, end, rows, commitMs: rounded(commitMs), visibleMs })
}

/**
 * Transactions one after the other without a wait, then the wait until the running instances show the last one, which
 * implies the others. Returns the milliseconds since the first.
 */
export async function burst(stage: Stage, jobs: readonly Job[]): Promise<number> {
  stage.signal.throwIfAborted()
  const started = nowMs()
  const witnesses = stage.fleet.running
  let last = 0
  for (const job of jobs) last = (await stage.writer.run(job)).revision
  await stage.visibility.untilSeen(last, witnesses, stage.signal)
  return elapsedMs(started)
}

/** Compares all instances with the tables, row by row, and the orders with what was delivered and billed. */
export async function check(stage: Stage, after: string): Promise<void> {
  stage.signal.throwIfAborted()
  const { instances, rows, differences, shown, digests, compareMs } = await compareAll(stage.pool, stage.fleet)
  stage.tell({ event: 'check', after, instances, rows, differences, checkMs: rounded(compareMs), digests })
  for (const { expected, found, ...where } of shown) {
    stage.tell({ event: 'difference', ...where, expected: expected ?? null, found: found ?? null })
  }
  stage.tell(await stage.deliveries.check(after, stage.signal))
}
