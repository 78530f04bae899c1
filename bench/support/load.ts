import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'

/** What the backends of a load call themselves in pg_stat_activity. */
export const loadName = 'bench-load'

export interface LoadOptions {
  readonly url: string
  /**
   * What each client does, over and over: a script as pgbench reads it. Only `\set name random(low, high)` and one SQL
   * statement a line, with `:name` for what was set and a semicolon at its end.
   */
  readonly script: string
  readonly clients: number
}

/** A load that runs. */
export interface Load {
  /** Ends the clients; throws what went wrong with them. */
  stop(): Promise<void>
}

/** What makes the load: pgbench where it is installed, else threads of our own, which cost more of the machine. */
export const loadGenerator: 'pgbench' | 'node' =
  spawnSync('pgbench', ['--version'], { stdio: 'ignore' }).status === 0 ? 'pgbench' : 'node'

/** Starts clients that repeat a script with prepared statements until they are stopped. */
export async function startLoad(options: LoadOptions): Promise<Load> {
  return loadGenerator === 'pgbench' ? startPgbench(options) : startWorkers(options)
}

async function startPgbench({ url, script, clients }: LoadOptions): Promise<Load> {
  const directory = await mkdtemp(join(tmpdir(), 'bench-load-'))
  const file = join(directory, 'script.sql')
  await writeFile(file, script)
  const named = new URL(url)
  named.searchParams.set('application_name', loadName)
  const threads = String(Math.min(2, clients))
  const args = ['-n', '-M', 'prepared', '-c', String(clients), '-j', threads, '-T', '3600', '-f', file, named.href]
  const child = spawn('pgbench', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const ended = once(child, 'exit')
  return {
    stop: async () => {
      const wasRunning = child.exitCode === null && child.kill('SIGTERM')
      await ended
      await rm(directory, { recursive: true })
      if (!wasRunning || complaints.includes('aborted')) throw new Error(`pgbench failed: ${complaints}`)
    },
  }
}

function startWorkers({ url, script, clients }: LoadOptions): Load {
  const threads = Math.min(2, clients)
  const stopped = new Int32Array(new SharedArrayBuffer(4))
  const workers = Array.from({ length: threads }, (_, thread) => {
    const share = Math.floor(clients / threads) + (thread < clients % threads ? 1 : 0)
    return new Worker(new URL('load-worker.ts', import.meta.url), {
      workerData: { url, script, clients: share, stopped },
    })
  })
  const failures: Error[] = []
  const ended = workers.map(async (worker) => {
    worker.on('error', (error: Error) => failures.push(error))
    await once(worker, 'exit').catch(() => undefined)
  })
  return {
    stop: async () => {
      Atomics.store(stopped, 0, 1)
      await Promise.all(ended)
      if (failures.length > 0) throw new AggregateError(failures, 'The load failed')
    },
  }
}
