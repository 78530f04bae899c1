import { Command, InvalidArgumentError } from 'commander'
import { migrate, type MigrationReport, planMigration, printMigration } from '../../schema/index.ts'
import { withContext } from '../context.ts'

interface Options {
  readonly dryRun?: boolean
  readonly print?: boolean
  readonly after?: number
}

/** `trunkline migrate` */
export function migrateCommand(signal: AbortSignal): Command {
  return new Command('migrate')
    .summary('install or upgrade the schema')
    .description('Installs the schema, or brings it to this version. Any number of processes may run it at once.')
    .option('--dry-run', 'tell what would be done, change nothing')
    .option('--print', 'print the migrations as one plain SQL file for psql, Flyway or another tool; needs no database')
    .option('--after <number>', 'with --print: only what comes after the migration of this number', toNumber)
    .addHelpText(
      'after',
      `
Examples:
  trunkline migrate --url postgres://owner:secret@localhost:5432/shop
  trunkline migrate --print > V7__trunkline.sql`,
    )
    .action(async (options: Options, command: Command) => {
      if (options.print === true && options.dryRun === true) {
        command.error("error: options '--print' and '--dry-run' exclude each other")
      }
      if (options.after !== undefined && options.print !== true) {
        command.error("error: option '--after' says where '--print' begins; without it all that is missing is applied")
      }
      await withContext(command, signal, async (context) => {
        const { schema, logger } = context
        if (options.print === true) {
          const sql = printMigration({ schema, after: options.after })
          context.print({ schema, sql }, sql.trimEnd())
          return
        }
        const run = options.dryRun === true ? planMigration : migrate
        const report = await run({ pool: context.pool(), schema, logger, signal })
        context.print({ ...report, dryRun: options.dryRun === true }, textOf(report, options.dryRun === true))
      })
    })
}

function toNumber(value: string): number {
  if (/^\d+$/.test(value)) return Number(value)
  throw new InvalidArgumentError('Expected the number of a migration.')
}

function textOf({ schema, migrations, routines }: MigrationReport, isDryRun: boolean): string {
  if (migrations.length + routines.length === 0) return `Schema "${schema}" is up to date.`
  const done = isDryRun ? 'Would apply' : 'Applied'
  const names = [...migrations.map((name) => `migration ${name}`), ...routines.map((name) => `routine ${name}`)]
  return [`${done} to schema "${schema}":`, ...names.map((name) => `  ${name}`)].join('\n')
}
