import { readFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { loadName, type LoadOptions, startLoad } from './load.ts'

/** Transactions after which a new connection has its caches and plans. */
const warmUpCount = 30
const warmUpMaxMs = 30_000

export interface MeasureOptions extends LoadOptions {
  /** A connection of the measurer's own. */
  readonly control: pg.Client
  /** Left out at the start, in milliseconds; longer where the clients have not run `warmUpCount` transactions each by then. */
  readonly warmUpMs: number
  readonly measureMs: number
  /** Called when the measured time begins. */
  readonly onMeasure?: (() => void) | undefined
}

export interface Throughput {
  /** Committed writing transactions a second. */
  readonly perSecond: number
  /** CPU time of the clients' backends for one transaction, in microseconds; undefined where /proc does not tell. */
  readonly cpuUs: number | undefined
}

/** Runs a load of writing transactions and measures it between two moments. */
export async function measureThroughput(options: MeasureOptions): Promise<Throughput> {
  const { control, clients, warmUpMs, measureMs } = options
  const load = await startLoad(options)
  try {
    const idle = await sample(control)
    let before = idle
    while (before.xmax - idle.xmax < clients * warmUpCount || before.at - idle.at < warmUpMs) {
      if (before.at - idle.at > warmUpMaxMs) throw new Error(`The load did not get under way within ${warmUpMaxMs} ms.`)
      await pause(100)
      before = await sample(control)
    }
    options.onMeasure?.()
    await pause(measureMs)
    const after = await sample(control)
    const count = Number(after.xmax - before.xmax)
    return {
      perSecond: (count / (after.at - before.at)) * 1_000,
      cpuUs:
        before.cpuNs === undefined || after.cpuNs === undefined
          ? undefined
          : (after.cpuNs - before.cpuNs) / 1_000 / count,
    }
  } finally {
    await load.stop()
  }
}

interface Sample {
  readonly at: number
  /** The next transaction id: each writing transaction takes one, looking takes none. */
  readonly xmax: bigint
  readonly cpuNs: number | undefined
}

async function sample(control: pg.Client): Promise<Sample> {
  const { rows } = await control.query<{ xmax: string; pids: number[] }>(
    `select txid_snapshot_xmax(txid_current_snapshot())::text as xmax,
      (select array_agg(pid) from pg_stat_activity where application_name = $1) as pids`,
    [loadName],
  )
  const at = performance.now()
  const [row] = rows
  return { at, xmax: BigInt(row?.xmax ?? 0), cpuNs: await cpuOf(row?.pids ?? []) }
}

/** Nanoseconds on the CPU, of all processes together: Linux counts them exactly. */
async function cpuOf(pids: readonly number[]): Promise<number | undefined> {
  try {
    const texts = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/schedstat`, 'utf8')))
    return texts.reduce((sum, text) => sum + Number(text.split(' ')[0]), 0)
  } catch {
    return undefined
  }
}
