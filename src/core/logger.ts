/** Any logger of the field fits: pino, winston, console. */
export interface Logger {
  debug(message: string, details?: Readonly<Record<string, unknown>>): void
  info(message: string, details?: Readonly<Record<string, unknown>>): void
  warn(message: string, details?: Readonly<Record<string, unknown>>): void
  error(message: string, details?: Readonly<Record<string, unknown>>): void
}

function ignore(): void {
  // A library says nothing unless it was given a logger.
}

export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore }
