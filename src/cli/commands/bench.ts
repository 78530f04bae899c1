import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import { CommandFailed } from '../context.ts'

interface Options {
  readonly quick?: boolean
  readonly postgres?: readonly string[]
}

/** Beside src/ in a checkout. The package leaves it out: it needs the peers' packages and measures this machine. */
const program = join(import.meta.dirname, '../../../bench/main.ts')

/** `trunkline bench` */
export function benchCommand(signal: AbortSignal): Command {
  return new Command('bench')
    .summary('measure what it costs on this machine (from a checkout)')
    .description(
      'Runs the benchmarks of bench/ on servers of their own and prints each figure as a ratio against a bare baseline, ' +
        'with its target. Without names all of them. Exit code 1 when a target was missed.',
    )
    .argument('[names...]', 'which ones; a name that there is not lists them')
    .option('--quick', 'short rounds: shows that a benchmark works and proves nothing')
    .addOption(
      new Option('--postgres <version...>', 'version of PostgreSQL; default: 12 and 18, one after the other').choices([
        '12',
        '18',
      ]),
    )
    .addHelpText('after', '\nExample:\n  trunkline bench latency --postgres 18 --json')
    .action(async (names: readonly string[], options: Options, command: Command) => {
      if (!existsSync(program)) {
        throw new InvalidInputError('The benchmarks are not in the package.', {
          code: 'no_benchmarks',
          hint: 'Run it in a checkout of the repository, after npm ci.',
        })
      }
      const isJson = command.optsWithGlobals<{ json?: boolean }>().json === true
      const switches = [...(options.quick === true ? ['--quick'] : []), ...(isJson ? ['--json'] : [])]
      const versions = (options.postgres ?? []).flatMap((version) => ['--version', version])
      await run([program, ...names, ...switches, ...versions], signal)
    })
}

async function run(args: readonly string[], signal: AbortSignal): Promise<void> {
  const child = spawn(process.execPath, args, { stdio: 'inherit' })
  // An interrupt from the terminal reaches it by itself, one that was sent to this process alone does not.
  signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (code === 2) throw new InvalidInputError('The benchmarks refused the arguments.', { code: 'invalid_argument' })
  if (code !== 0) throw new CommandFailed()
}
