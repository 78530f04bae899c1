import { once } from 'node:events'
import { Command } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import { type EventReading, EventStore, type RecordedEvent } from '../../events/index.ts'
import { checkSchema } from '../../schema/index.ts'
import { printable } from '../change-text.ts'
import { type CommandContext, queryable, withContext } from '../context.ts'
import { collect } from '../options.ts'
import { textTable } from '../table.ts'

interface Options {
  readonly asOf?: string
  readonly fromVersion?: string
  readonly toVersion?: string
  readonly category?: string
  readonly id?: string
  readonly type?: readonly string[]
  readonly from?: string
  readonly to?: string
  readonly metadata?: string
  readonly last?: string
  readonly limit?: string
}

type Work = (events: EventStore, context: CommandContext, options: Options, args: readonly string[]) => Promise<void>

/** `trunkline events` */
export function eventsCommand(signal: AbortSignal): Command {
  const group = new Command('events')
    .summary('the event store: show a stream, list streams and events, publish')
    .description('Looks into the event store. Events are shown as they are stored.')
    .addHelpText(
      'after',
      `
Examples:
  trunkline events show order-17 --as-of '2026-03-01 12:00+00'
  trunkline events list --type paid --from 2026-03-01 --metadata '{"userId": "7"}' --json
  trunkline events streams --category order
  trunkline events publish order invoice`,
    )
  const add = (name: string, summary: string, work: Work): Command =>
    group
      .command(name)
      .summary(summary)
      .description(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`)
      .exitOverride()
      .action(async (...values: unknown[]) => {
        const command = values.at(-1) as Command
        await withContext(command, signal, async (context) => {
          await checkSchema(queryable(context), context.schema)
          await work(storeOf(context), context, command.opts<Options>(), command.args)
        })
      })
  add('show', 'show the events of a stream, the oldest first', show)
    .argument('<stream>', 'type-id of the aggregate: order-17')
    .option('--as-of <time>', 'as the stream was at that time')
    .option('--from-version <n>', 'from this version on')
    .option('--to-version <n>', 'up to this version')
  add('list', 'list events of all streams, the oldest first', list)
    .option('--category <type>', 'only of aggregates of this type')
    .option('--id <id>', 'only of aggregates with this id')
    .option('--type <type>', 'only events of this type; repeat for several', collect)
    .option('--from <time>', 'appended at that time or later')
    .option('--to <time>', 'appended before that time')
    .option('--metadata <json>', 'with metadata that contains this object')
    .option('--last <n>', 'only the last so many, the newest first')
  add('streams', 'list streams by name, with version and times', streams)
    .option('--category <type>', 'only of aggregates of this type')
    .option('--limit <n>', 'at most so many')
  add(
    'publish',
    'have relays deliver the events of these aggregate types, and of no others, from now on',
    publish,
  ).argument('[categories...]', 'types of aggregates: order; none: publish nothing')
  return group
}

const show: Work = async (events, context, options, [stream = '']) => {
  const count = await printAll(
    context,
    events.read(stream, {
      asOf: options.asOf,
      fromVersion: numberOf('--from-version', options.fromVersion),
      toVersion: numberOf('--to-version', options.toVersion),
    }),
  )
  if (count === 0 && !context.isJson) context.print({}, `No event of ${printable(stream)}.`)
}

const list: Work = async (events, context, options) => {
  const last = numberOf('--last', options.last)
  await printAll(
    context,
    events.query({
      aggregateType: options.category,
      aggregateId: options.id,
      types: options.type,
      from: options.from,
      to: options.to,
      metadata: metadataOf(options.metadata),
      ...(last === undefined ? {} : { direction: 'backward', limit: last }),
    }),
  )
}

const streams: Work = async (events, context, options) => {
  const found = []
  for await (const stream of events.streams({
    category: options.category,
    limit: numberOf('--limit', options.limit),
  })) {
    if (context.signal.aborted) return
    if (context.isJson) context.print({ ...stream }, undefined)
    else
      found.push([
        printable(stream.stream),
        String(stream.version),
        stream.firstAt.toISOString(),
        stream.lastAt.toISOString(),
      ])
  }
  if (context.isJson) return
  context.print({}, found.length === 0 ? 'No stream.' : textTable(['STREAM', 'VERSION', 'FIRST', 'LAST'], found))
}

const publish: Work = async (events, context, _options, categories) => {
  await events.publish(categories)
  context.print(
    { published: categories },
    categories.length === 0 ? 'Nothing is published.' : `Published from now on: ${categories.join(', ')}.`,
  )
}

/** Prints page after page, no faster than it is read. Gives how many. */
async function printAll(context: CommandContext, reading: EventReading): Promise<number> {
  let count = 0
  for await (const page of reading.pages()) {
    if (context.signal.aborted || !process.stdout.writable) break
    count += page.length
    const text = page.map((event) => (context.isJson ? JSON.stringify(event) : textOf(event))).join('\n')
    if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain').catch(() => undefined)
  }
  return count
}

function textOf(event: RecordedEvent): string {
  const metadata = Object.keys(event.metadata).length === 0 ? '' : `  ${JSON.stringify(event.metadata)}`
  const type = event.schemaVersion === 1 ? event.type : `${event.type}@${event.schemaVersion}`
  return `${event.createdAt.toISOString()}  ${printable(event.stream)} ${event.version}  ${printable(type)}  ${JSON.stringify(event.payload)}${metadata}`
}

function storeOf(context: CommandContext): EventStore {
  return new EventStore({
    schema: context.schema,
    pool: () => context.pool(),
    listenConfig: () => false,
    pollIntervalMs: 1_000,
    minIntervalMs: 10,
    logger: context.logger,
  })
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new InvalidInputError(`${option} is "${text}", expected a whole number.`, { code: 'invalid_option' })
}

function metadataOf(text: string | undefined): Record<string, unknown> | undefined {
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // Said below.
  }
  throw new InvalidInputError(`--metadata is no JSON object.`, {
    code: 'invalid_option',
    hint: `For example: --metadata '{"userId": "7"}'.`,
  })
}
