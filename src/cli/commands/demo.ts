import { Command, Option } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import { type EmbeddedPostgresVersion } from '../../testing/index.ts'
import { CommandFailed, withContext } from '../context.ts'
import { runDemo } from '../demo/run.ts'
import { createView } from '../demo/view.ts'

interface Options {
  readonly once?: boolean
  readonly postgres?: EmbeddedPostgresVersion
}

/** `trunkline demo` */
export function demoCommand(signal: AbortSignal): Command {
  return new Command('demo')
    .summary('show it at work, on a server of its own')
    .description(
      'Starts a PostgreSQL of its own (binaries from npm, no Docker; also as root), loads 170,000 rows of real reference ' +
        'data, and lets five processes hold them in memory while they are changed, connections are broken, a process is ' +
        'killed and the database crashes. Meanwhile orders are written with their events, which relays deliver to a webhook ' +
        'receiver (killed and started again) and a file. Compares every row of every process with the table, every order ' +
        'with what was delivered and billed, and leaves nothing behind.',
    )
    .option('--once', 'run through unattended, print the figures and end; exit code 1 on any difference')
    .addOption(
      new Option('--postgres <version>', 'version of PostgreSQL; default: 12, or 18 where npm has no 12').choices([
        '12',
        '13',
        '14',
        '15',
        '16',
        '17',
        '18',
      ]),
    )
    .addHelpText(
      'after',
      `
Examples:
  trunkline demo
  trunkline demo --once --json | jq 'select(.event == "result")'`,
    )
    .action(async (options: Options, command: Command) => {
      if (command.optsWithGlobals<{ url?: string }>().url !== undefined) {
        throw new InvalidInputError('demo works on a server of its own.', {
          code: 'invalid_argument',
          hint: 'Leave --url out.',
        })
      }
      await withContext(command, signal, async ({ schema, isJson }) => {
        const view = createView(isJson, process.stdout)
        const result = await runDemo({
          isOnce: options.once === true,
          version: options.postgres,
          schema,
          tell: (event) => view.tell(event),
          signal,
        })
        if (!result.isEqual) throw new CommandFailed()
      })
    })
}
