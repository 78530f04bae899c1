import { Command, CommanderError } from 'commander'
import { InvalidInputError, messageOf, TrunklineError } from '../core/index.ts'
import { packageVersion } from '../schema/index.ts'
import { benchCommand } from './commands/bench.ts'
import { captureCommand } from './commands/capture.ts'
import { deadLettersCommand } from './commands/dead-letters.ts'
import { demoCommand } from './commands/demo.ts'
import { doctorCommand } from './commands/doctor.ts'
import { emitCommand } from './commands/emit.ts'
import { eventsCommand } from './commands/events.ts'
import { migrateCommand } from './commands/migrate.ts'
import { projectionsCommand } from './commands/projections.ts'
import { relayCommand } from './commands/relay.ts'
import { releaseCommand } from './commands/release.ts'
import { statusCommand } from './commands/status.ts'
import { tailCommand } from './commands/tail.ts'
import { uninstallCommand } from './commands/uninstall.ts'
import { CommandFailed } from './context.ts'
import { addGlobalOptions } from './options.ts'
import { redact } from './redact.ts'
import type { CaughtSignals } from './signals.ts'

/** What a process answers its caller with. */
const exitCodes = { done: 0, failed: 1, wrongUsage: 2 } as const

/** Errors of the class for wrong input that no other command line would mend. */
const failures = new Set(['no_privilege', 'server_too_old', 'standby', 'unknown_dead_letter', 'unknown_parked_event'])

/** Whose caller takes 0 for written: a signal that cuts it short is a failure. For all others it is an end like another. */
const notEndedBySignal = new Set(['emit'])

/** Every command, in the order of the help. A new one is a line here and a file in commands/. */
const commands = [
  demoCommand,
  migrateCommand,
  uninstallCommand,
  captureCommand,
  releaseCommand,
  emitCommand,
  tailCommand,
  relayCommand,
  deadLettersCommand,
  eventsCommand,
  projectionsCommand,
  statusCommand,
  doctorCommand,
  benchCommand,
]

/** Runs `trunkline` with these arguments; resolves with the exit code when all is done and closed. */
export async function runCommandLine(args: readonly string[], signals: CaughtSignals): Promise<number> {
  // Whoever reads our output may stop reading (trunkline status | head).
  process.stdout.on('error', () => undefined)
  const root = program(signals.signal)
  const command = args.find((arg) => root.commands.some((one) => one.name() === arg)) ?? ''
  try {
    if (signals.signal.aborted) throw stopped()
    await root.parseAsync(args, { from: 'user' })
    return exitCodes.done
  } catch (error) {
    return signals.signal.aborted && !notEndedBySignal.has(command) ? exitCodes.done : report(error)
  } finally {
    signals.release()
  }
}

/** Told to stop while the commands were loaded. */
function stopped(): TrunklineError {
  return new TrunklineError('Stopped by a signal before anything was done.', { code: 'stopped', retryable: true })
}

function program(signal: AbortSignal): Command {
  const root = new Command('trunkline')
    .description('Change log, live caches and outbox on plain PostgreSQL.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpCommand('help [command]', 'print the help of a command')
    .showHelpAfterError('Run: trunkline --help')
  configure(root)
  addGlobalOptions(root)
  for (const make of commands) {
    const command = configure(make(signal)).showHelpAfterError(`Run: trunkline ${make(signal).name()} --help`)
    root.addCommand(command)
  }
  return root
}

function configure(command: Command): Command {
  return command
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      // An unknown option is printed as it was typed: it may be a misspelt --url.
      writeErr: (text) => process.stderr.write(redact(text)),
    })
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.wrongUsage
  if (error instanceof CommandFailed) return exitCodes.failed
  process.stderr.write(redact(`trunkline: ${messageOf(error)}\n`))
  return error instanceof InvalidInputError && !failures.has(error.code) ? exitCodes.wrongUsage : exitCodes.failed
}
