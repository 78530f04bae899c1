import { Command } from 'commander'
import { type EventStoreStatus, eventStoreStatus } from '../../events/index.ts'
import { toTrunklineError } from '../../postgres/index.ts'
import { projectionStatuses } from '../../projections/index.ts'
import { relayBehindMax, type RelayStatus, relayStatuses } from '../../relay/index.ts'
import { checkSchema } from '../../schema/index.ts'
import { type CommandContext, queryable, withContext } from '../context.ts'
import { routingReport, textOfDecision, textOfNodes } from '../routing-status.ts'
import {
  behindRowsMax,
  type InstallationStatus,
  installationStatus,
  type ReaderStatus,
  readerStatuses,
  type SlotStatus,
  slotStatuses,
  type TableStatus,
  tableStatuses,
} from '../status-report.ts'
import { textOfAge, textOfBytes, textOfSeconds, textTable } from '../table.ts'
import { textOfProjections } from './projections.ts'

/** `trunkline status` */
export function statusCommand(signal: AbortSignal): Command {
  return new Command('status')
    .summary('what is captured, how far each reader is, lag, size')
    .description(
      'Shows what is captured, the size of the log, and how far each durable reader is, and the servers of\nTRUNKLINE_REPLICA_URLS.',
    )
    .addHelpText(
      'after',
      `
Examples:
  trunkline status
  trunkline status --json | jq 'select(.kind == "reader")'`,
    )
    .action(async (_options: object, command: Command) => {
      await withContext(command, signal, show)
    })
}

async function show(context: CommandContext): Promise<void> {
  const db = queryable(context)
  const { schema } = context
  await checkSchema(db, schema)
  // What is wrong with its URLs is told before anything is shown.
  const lookAtServers = routingReport(context)
  try {
    const installation = await installationStatus(db, schema)
    context.print({ kind: 'installation', ...installation }, textOfInstallation(installation))
    printAll(context, 'table', await tableStatuses(db, schema), textOfTables)
    printAll(context, 'slot', await slotStatuses(db, schema), textOfSlots)
    printAll(context, 'reader', await readerStatuses(db, schema), textOfReaders)
    printAll(context, 'relay', await relayStatuses(db, schema), textOfRelays)
    const events = await eventStoreStatus(db, schema)
    context.print({ kind: 'events', ...events }, `\n${textOfEvents(events)}`)
    const projections = await projectionStatuses(db, schema)
    if (projections.length > 0) printAll(context, 'projection', projections, textOfProjections)
    if (lookAtServers === undefined) return
    const routing = await lookAtServers()
    printAll(context, 'server', routing.nodes, textOfNodes)
    context.print({ kind: 'decision', ...routing.decision }, textOfDecision(routing.decision))
  } catch (error) {
    throw toTrunklineError(error, 'Reading the status')
  }
}

function printAll<Item extends object>(
  context: CommandContext,
  kind: string,
  items: readonly Item[],
  text: (items: readonly Item[]) => string,
): void {
  if (context.isJson) for (const item of items) context.print({ kind, ...item }, undefined)
  else context.print({}, `\n${text(items)}`)
}

function textOfInstallation(status: InstallationStatus): string {
  return [
    `Schema "${status.schema}", migration ${status.migration}, channel ${status.channel}`,
    `NOTIFY ${status.wake}, ${status.sleepingReaders} readers asleep, ${status.openWriters} open writers`,
    `Log ${textOfBytes(BigInt(status.logBytes))}, kept for ${status.retention}, for a reader at most ${status.hold}`,
  ].join('\n')
}

function textOfEvents(status: EventStoreStatus): string {
  const published = status.published.length === 0 ? 'none published' : `published: ${status.published.join(', ')}`
  const oldest =
    status.oldestWriterSeconds === null ? '' : `, the oldest for ${textOfSeconds(status.oldestWriterSeconds)}`
  return (
    `Events about ${status.events}, ${textOfBytes(BigInt(status.bytes))}, last position ${status.lastPosition}, ` +
    `${status.openWriters} open writers${oldest}; ${published}`
  )
}

function textOfTables(tables: readonly TableStatus[]): string {
  if (tables.length === 0) return 'No table is captured. For example: trunkline capture public.common_code'
  return textTable(
    ['TABLE', 'STATE', 'ROWS', 'KEY', 'EXCLUDE', 'WHERE', 'WAKE'],
    tables.map((table) => [
      table.table,
      stateOf(table),
      table.rows,
      table.key.join(', ') || '(whole row)',
      table.exclude.join(', ') || '-',
      table.where ?? '-',
      table.wake ?? '-',
    ]),
  )
}

function stateOf(table: TableStatus): string {
  if (!table.exists) return 'dropped'
  if (!table.captured) return 'released'
  return table.missingTriggers.length === 0 ? 'captured' : `${table.missingTriggers.length} triggers missing`
}

function textOfSlots(slots: readonly SlotStatus[]): string {
  return textTable(
    ['SLOT', 'STATE', 'SIZE', 'ROWS (ABOUT)', 'OLDEST ROW'],
    slots.map((slot) => [
      String(slot.slot),
      slot.current ? 'written' : slot.closedAt === null ? 'empty' : `closed for ${textOfAge(slot.closedAt)}`,
      textOfBytes(BigInt(slot.bytes)),
      slot.rows,
      textOfAge(slot.oldestRowAt),
    ]),
  )
}

function textOfReaders(readers: readonly ReaderStatus[]): string {
  if (readers.length === 0) return 'No durable reader.'
  return textTable(
    ['READER', 'STATE', 'BEHIND', 'OLDEST UNREAD', 'MOVED'],
    readers.map((reader) => [
      reader.name,
      reader.alive ? 'alive' : 'dead',
      `${reader.behindRows}${reader.behindRows >= behindRowsMax ? '+' : ''} rows`,
      reader.behindSeconds === null ? '-' : textOfSeconds(reader.behindSeconds),
      `${textOfAge(reader.updatedAt)} ago`,
    ]),
  )
}

function textOfRelays(relays: readonly RelayStatus[]): string {
  if (relays.length === 0) return 'No relay.'
  return textTable(
    ['RELAY', 'SINK', 'PROCESSES', 'BEHIND', 'OLDEST', 'WAITING', 'DEAD LETTERS'],
    relays.map((relay) => [
      relay.name,
      relay.sink,
      relay.processes.map(({ process, slots }) => `${process} (${slots})`).join(', ') || 'none runs',
      `${relay.behindRows}${relay.behindRows >= relayBehindMax ? '+' : ''} rows`,
      relay.behindSeconds === null ? '-' : textOfSeconds(relay.behindSeconds),
      String(relay.waiting),
      String(relay.deadLetters),
    ]),
  )
}
