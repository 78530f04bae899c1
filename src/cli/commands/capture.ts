import { Command, Option } from 'commander'
import { captureTable, type CaptureOptions } from '../../log/index.ts'
import { queryable, withContext } from '../context.ts'
import { collect } from '../options.ts'

/** `trunkline capture` */
export function captureCommand(signal: AbortSignal): Command {
  return new Command('capture')
    .summary("install the triggers that write a table's changes to the log")
    .description(
      "Installs the triggers that write a table's changes to the log. A TABLE is written as in SQL; without a schema it is " +
        'looked up in public. Again with other options changes the capture.',
    )
    .argument('<table...>', 'orders, app.orders, \'"Odd Schema"."T ü"\'')
    .addOption(
      new Option('--rows <mode>', 'full: old and new images; keys: key and operation only, for caches and mirrors')
        .choices(['full', 'keys'])
        .default('full'),
    )
    .option('--exclude <column>', 'keep the values of a column out of the log; repeat for several', collect)
    .option('--where <sql>', "capture only the rows for which a condition over the table's columns holds")
    .addOption(
      new Option('--wake <mode>', 'who is told of a commit: only a sleeping reader, always, nobody').choices([
        'elided',
        'always',
        'off',
      ]),
    )
    .addHelpText(
      'after',
      `
Examples:
  trunkline capture common_code currency
  trunkline capture app.users --exclude password --exclude token --where "country = 'KR'"`,
    )
    .action(async (tables: string[], options: CaptureOptions, command: Command) => {
      await withContext(command, signal, async (context) => {
        for (const table of tables) {
          if (signal.aborted) return
          const topic = await captureTable(queryable(context), context.schema, table, { ...options, signal })
          context.print({ table, captured: true, topic, ...described(options) }, `Captured ${table}.`)
        }
      })
    })
}

function described({ rows = 'full', exclude = [], where, wake }: CaptureOptions): Record<string, unknown> {
  return { rows, exclude, where: where ?? null, wake: wake ?? null }
}
