import { Command } from 'commander'
import { releaseTable } from '../../log/index.ts'
import { queryable, withContext } from '../context.ts'

/** `trunkline release` */
export function releaseCommand(signal: AbortSignal): Command {
  return new Command('release')
    .summary('remove the triggers of a table')
    .description('Removes the triggers of a table. What of it is in the log stays there until rotation.')
    .argument('<table...>', 'orders, app.orders, \'"Odd Schema"."T ü"\'')
    .addHelpText(
      'after',
      `
Example:
  trunkline release common_code app.users`,
    )
    .action(async (tables: string[], _options: object, command: Command) => {
      await withContext(command, signal, async (context) => {
        for (const table of tables) {
          if (signal.aborted) return
          const released = await releaseTable(queryable(context), context.schema, table, { signal })
          context.print({ table, released }, released ? `Released ${table}.` : `${table} was not captured.`)
        }
      })
    })
}
