import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

/** The command line's file, for a test that starts it in a way of its own. */
export const main: string = join(import.meta.dirname, '..', '..', 'src', 'cli', 'main.ts')

/** What a run of the command left. */
export interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** Called with the process id as soon as it runs. */
  readonly onStart?: (pid: number) => void
}

/** Runs the real command line, with nothing of ours in its environment but what is given. */
export async function trunkline(args: readonly string[], { env = {}, cwd, onStart }: RunOptions = {}): Promise<Run> {
  const child = spawn(process.execPath, [main, ...args], {
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      DATABASE_URL: undefined,
      TRUNKLINE_SCHEMA: undefined,
      TRUNKLINE_LISTEN_URL: undefined,
      TRUNKLINE_REPLICA_URLS: undefined,
      TRUNKLINE_LOG_LEVEL: undefined,
      ...env,
    },
  })
  if (child.pid !== undefined) onStart?.(child.pid)
  const [stdout, stderr] = [text(child.stdout), text(child.stderr)]
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout: await stdout, stderr: await stderr }
}

/** The lines of a run with --json, each of which must be one object. */
export function objectsOf(run: Run): Record<string, unknown>[] {
  return run.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}
