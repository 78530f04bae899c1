import { pause, TrunklineError } from '../../core/index.ts'
import { elapsedMs, nowMs, rounded } from './clock.ts'
import { faultJobs } from './jobs.ts'
import { mainName, type Stage } from './stage.ts'
import { burst, check } from './steps.ts'

/** Something that breaks, transactions meanwhile, and the comparison after it. */
type Fault = (stage: Stage, turn: number) => Promise<void>

/** How long the instances may take to listen again, in milliseconds. */
const listenTimeoutMs = 30_000

/** Orders that may be on their way when those that waited count as delivered. */
const waitingMax = 3
/** How long the webhook receiver is away, in milliseconds. */
const receiverAwayMs = 1_500

/** Each fault in its turn; all of them are carried out by `faultKinds` turns. */
export async function breakSomething(stage: Stage, turn: number): Promise<void> {
  const fault = faults[turn % faults.length] ?? terminateListeners
  await stage.deliveries.disturbed(() => fault(stage, turn))
}

/** The server ends every connection of the instances, the relays and the receiver: those that listen and those that read. */
const terminateListeners: Fault = async (stage) => {
  const started = nowMs()
  const { rowCount } = await stage.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name like 'trunkline%' and application_name <> $1`,
    [mainName],
  )
  const recoveredMs = await burst(stage, faultJobs)
  await untilListening(stage)
  const details = {
    terminated: rowCount ?? 0,
    transactions: faultJobs.length,
    listeningAgainMs: rounded(elapsedMs(started)),
  }
  const what = `${rowCount} connections of the instances and relays terminated`
  stage.tell({ event: 'fault', fault: 'listeners-terminated', what, recoveredMs: rounded(recoveredMs), details })
  await check(stage, 'listeners-terminated')
}

/** One instance is killed without warning, misses transactions, and is started again while others are written. */
const killInstance: Fault = async (stage, turn) => {
  const { running } = stage.fleet
  const victim = running[(turn + 1) % running.length]?.instance ?? 1
  await stage.fleet.kill(victim)
  const othersMs = await burst(stage, faultJobs)
  const started = nowMs()
  await Promise.all([stage.fleet.restart(victim), burst(stage, faultJobs)])
  const recoveredMs = rounded(elapsedMs(started))
  const details = { instance: victim, transactions: 2 * faultJobs.length, othersMs: rounded(othersMs) }
  const what = `instance ${victim} killed and started again`
  stage.tell({ event: 'fault', fault: 'instance-killed', what, recoveredMs, details })
  await check(stage, 'instance-killed')
}

/** The server stops as in a crash and recovers; the instances go on answering from memory meanwhile. */
const restartDatabase: Fault = async (stage) => {
  const { postgres } = stage.server
  const urlBefore = stage.server.url()
  const stopped = nowMs()
  await postgres.stop('immediate')
  const statuses = await stage.fleet.status()
  const answered = statuses.filter(({ read }) => read !== undefined).length
  await postgres.start()
  const downMs = rounded(elapsedMs(stopped))
  if (stage.server.url() !== urlBefore) {
    throw new TrunklineError('Another program took the port of the demo’s server while it was down.', {
      code: 'port_taken',
      retryable: true,
      hint: 'Run the demo again.',
    })
  }
  const recoveredMs = rounded(await burst(stage, faultJobs))
  await untilListening(stage)
  const details = { downMs, answeredWhileDown: answered, transactions: faultJobs.length }
  const what = `database crashed and restarted; ${answered} of ${statuses.length} instances answered meanwhile`
  stage.tell({ event: 'fault', fault: 'database-restarted', what, recoveredMs, details })
  await check(stage, 'database-restarted')
}

/** The webhook receiver is killed; orders go on, and to the file, too. It comes back, and has all that waited. */
const killReceiver: Fault = async (stage) => {
  const { deliveries } = stage
  await deliveries.killReceiver()
  await pause(receiverAwayMs)
  const waited = await deliveries.waiting()
  const started = nowMs()
  await deliveries.startReceiver()
  const startMs = rounded(elapsedMs(started))
  while ((await deliveries.waiting()).webhook > waitingMax && elapsedMs(started) < listenTimeoutMs) {
    stage.signal.throwIfAborted()
    await pause(20)
  }
  const recoveredMs = rounded(elapsedMs(started))
  const details = { awayMs: receiverAwayMs, startMs, waitedForWebhook: waited.webhook, waitedForFile: waited.file }
  const what = `webhook receiver killed and started again after ${receiverAwayMs} ms; ${waited.webhook} orders waited for it, ${waited.file} for the file`
  stage.tell({ event: 'fault', fault: 'receiver-killed', what, recoveredMs, details })
  await check(stage, 'receiver-killed')
}

const faults: readonly Fault[] = [terminateListeners, killInstance, restartDatabase, killReceiver]
export const faultKinds: number = faults.length

/** Waits until every instance is live and is told of commits by NOTIFY again. */
async function untilListening(stage: Stage): Promise<void> {
  const deadline = nowMs() + listenTimeoutMs
  for (;;) {
    stage.signal.throwIfAborted()
    const statuses = await stage.fleet.status()
    if (statuses.every(({ mode, isLive }) => isLive && mode === 'listen')) return
    if (nowMs() > deadline) {
      throw new TrunklineError(`Not all instances listen again within ${listenTimeoutMs} ms.`, {
        code: 'not_listening',
      })
    }
    await pause(20)
  }
}
