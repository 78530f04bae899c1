import { spawn } from 'node:child_process'

/** A helper process that ends a server when our own process is gone, however it ended. */
export interface OrphanGuard {
  /** Ends the guard and leaves the server alone. */
  dismiss(): void
}

/**
 * Waits until its standard input closes, which the system does when our process ends, even by SIGKILL. Then it asks the
 * server to stop (arguments: process id, signal, directory to remove or nothing), and insists after ten seconds.
 */
const GUARD_SCRIPT = `
  cat >/dev/null
  kill -s "$2" "$1" 2>/dev/null
  tries=0
  while kill -0 "$1" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -eq 100 ] && kill -s KILL "$1" 2>/dev/null
    [ "$tries" -gt 150 ] && break
    sleep 0.1
  done
  [ -n "$3" ] && rm -rf -- "$3"
`

/**
 * Starts a guard for a server process.
 *
 * @param signal how the server is stopped: INT keeps the data clean, QUIT is quicker, for data that is thrown away.
 * @param removeDirectory a directory to remove after the server has ended.
 */
export function guardServer(pid: number, signal: 'INT' | 'QUIT', removeDirectory?: string): OrphanGuard {
  const guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT, 'trunkline-guard', String(pid), signal, removeDirectory ?? ''], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    cwd: '/',
  })
  guard.on('error', () => {})
  guard.stdin.on('error', () => {})
  guard.unref()
  unrefStream(guard.stdin)
  return { dismiss: () => void guard.kill('SIGKILL') }
}

/** The pipe must not keep our process alive; its declared type lacks `unref`, its class (a socket) has it. */
function unrefStream(stream: unknown): void {
  ;(stream as { unref?: () => void }).unref?.()
}
