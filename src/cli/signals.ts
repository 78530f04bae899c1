/** 128 and the number of SIGINT. */
const interruptedExitCode = 130

export interface CaughtSignals {
  readonly signal: AbortSignal
  /** Gives the signals back. */
  release(): void
}

/** SIGINT and SIGTERM as a signal for the work under way: it finishes. A second one ends the process at once. */
export function catchSignals(): CaughtSignals {
  const controller = new AbortController()
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(interruptedExitCode)
    controller.abort()
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  return {
    signal: controller.signal,
    release() {
      process.off('SIGINT', stop).off('SIGTERM', stop)
    },
  }
}
