import { Command } from 'commander'
import { uninstall, type UninstallReport } from '../../schema/index.ts'
import { withContext } from '../context.ts'

/** `trunkline uninstall` */
export function uninstallCommand(signal: AbortSignal): Command {
  return new Command('uninstall')
    .summary('remove triggers and schema')
    .description(
      "Removes the triggers and the schema with all that is in the log. The application's tables stay as they were.\n" +
        'Where events are stored it removes nothing, unless told to.',
    )
    .option('--drop-events', 'remove stored events too, for good')
    .addHelpText(
      'after',
      `
Example:
  trunkline uninstall --url postgres://owner:secret@localhost:5432/shop`,
    )
    .action(async (options: { readonly dropEvents?: boolean }, command: Command) => {
      await withContext(command, signal, async (context) => {
        const { schema, logger } = context
        const report = await uninstall({ pool: context.pool(), schema, logger, signal, dropEvents: options.dropEvents })
        context.print({ ...report }, textOf(report))
      })
    })
}

function textOf({ schema, removed, released, kept }: UninstallReport): string {
  if (!removed) return `Schema "${schema}" has nothing of trunkline: there is nothing to remove.`
  const stays = kept.length > 0 ? ` The schema stays: it holds ${kept.join(', ')}.` : ''
  const tables = released.length > 0 ? ` Released: ${released.join(', ')}.` : ''
  return `Removed trunkline from schema "${schema}".${tables}${stays}`
}
