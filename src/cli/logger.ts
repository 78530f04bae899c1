import { InvalidInputError, type Logger } from '../core/index.ts'
import { redact } from './redact.ts'

const levels = ['debug', 'info', 'warn', 'error', 'silent'] as const
type Level = (typeof levels)[number]

/** A logger to standard error, from the level of TRUNKLINE_LOG_LEVEL (default info) on. */
export function stderrLogger(): Logger {
  const least = levels.indexOf(checkedLevel(process.env['TRUNKLINE_LOG_LEVEL']))
  const at =
    (level: Exclude<Level, 'silent'>) =>
    (message: string, details: Readonly<Record<string, unknown>> = {}): void => {
      if (levels.indexOf(level) < least) return
      const facts = Object.entries(details).map(([name, value]) => ` ${name}=${printed(value)}`)
      process.stderr.write(redact(`${level}: ${message}${facts.join('')}\n`))
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function checkedLevel(value: string | undefined): Level {
  if (value === undefined || value === '') return 'info'
  const level = levels.find((known) => known === value.toLowerCase())
  if (level !== undefined) return level
  throw new InvalidInputError(`TRUNKLINE_LOG_LEVEL is "${value}".`, {
    code: 'invalid_argument',
    hint: `Set it to one of ${levels.join(', ')}.`,
  })
}

function printed(value: unknown): string {
  if (value instanceof Error) return JSON.stringify(value.message)
  return typeof value === 'string' && /^[\w.-]+$/.test(value) ? value : (JSON.stringify(value) ?? 'undefined')
}
