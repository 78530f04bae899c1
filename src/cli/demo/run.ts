import { setTimeout as delay } from 'node:timers/promises'
import { type EmbeddedPostgresVersion } from '../../testing/index.ts'
import { elapsedMs, nowMs } from './clock.ts'
import { type DemoEvent, type ResultEvent } from './events.ts'
import { breakSomething, faultKinds } from './faults.ts'
import { Figures } from './figures.ts'
import { jobOfTurn } from './jobs.ts'
import { setStage, type Stage } from './stage.ts'
import { change, check } from './steps.ts'

export interface DemoOptions {
  /** Ends by itself after the faults; else it goes on until it is interrupted. */
  readonly isOnce: boolean
  readonly version: EmbeddedPostgresVersion | undefined
  /** Where trunkline's log lives. */
  readonly schema: string
  readonly tell: (event: DemoEvent) => void
  readonly signal: AbortSignal
}

const instanceCount = 5
/** Transactions of the main job. */
const turns = 100
/** Longest random pause between two transactions of the main job, in milliseconds: nobody writes in step. */
const pauseMaxMs = 25
/** The same, when it goes on for somebody to look at. */
const watchedPauseMs = 300
/** Time between two faults when it goes on, in milliseconds. */
const faultIntervalMs = 30_000

/** Runs the demo to its end and returns what it measured, also when it was interrupted. Leaves nothing behind. */
export async function runDemo(options: DemoOptions): Promise<ResultEvent> {
  const { version, schema, signal } = options
  const started = nowMs()
  const figures = new Figures()
  const tell = (event: DemoEvent): void => {
    figures.add(event)
    options.tell(event)
  }
  try {
    await using stage = await setStage({ version, schema, instances: instanceCount, tell, signal })
    await perform(stage)
    if (!options.isOnce) await goOn(stage)
  } catch (error) {
    // What was under way fails when the instances are stopped: that is what was asked for.
    if (!signal.aborted) throw error
  }
  const result = figures.result(elapsedMs(started))
  options.tell(result)
  return result
}

/** The main job, then every fault once. */
async function perform(stage: Stage): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    await change(stage, jobOfTurn(turn))
    await delay(Math.random() * pauseMaxMs, undefined, { signal: stage.signal })
  }
  await check(stage, 'changes')
  for (let turn = 0; turn < faultKinds; turn += 1) await breakSomething(stage, turn)
}

/** Until it is interrupted. */
async function goOn(stage: Stage): Promise<void> {
  stage.tell({ event: 'note', text: `Going on, with a fault every ${faultIntervalMs / 1000} s. Ctrl-C ends it.` })
  let faultAtMs = nowMs() + faultIntervalMs
  for (let turn = turns, fault = 0; ; turn += 1) {
    await change(stage, jobOfTurn(turn))
    await delay(watchedPauseMs, undefined, { signal: stage.signal })
    if (nowMs() < faultAtMs) continue
    await breakSomething(stage, fault)
    fault += 1
    faultAtMs = nowMs() + faultIntervalMs
  }
}
