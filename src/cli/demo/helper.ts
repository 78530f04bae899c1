import { setTimeout as delay } from 'node:timers/promises'

/** How long a helper may take to end when the main process is gone, in milliseconds. */
const endTimeoutMs = 4_000

/** For a process that helper-process.ts has started: ends it when the channel to the main process is closed. */
export function endWithMain(stop: () => Promise<unknown>): void {
  // Ctrl-C in a terminal reaches every process of the group; the main process ends this one in its turn.
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => undefined)
  process.on('disconnect', () => {
    void Promise.race([stop().catch(() => undefined), delay(endTimeoutMs)]).then(() => process.exit(0))
  })
}

/** Tells the main process, which may be gone. */
export function tellMain(message: object): void {
  if (process.connected) process.send?.(message, () => undefined)
}
