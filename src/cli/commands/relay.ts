import { once } from 'node:events'
import { Command, InvalidArgumentError, Option } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import type { AfterDeadLetter, FormatName, Relay, Sink } from '../../relay/index.ts'
import { createTrunkline } from '../../trunkline.ts'
import { CommandFailed, type CommandContext, withContext } from '../context.ts'
import { collect } from '../options.ts'

interface Options {
  readonly name: string
  readonly sink: string
  readonly topic?: readonly string[]
  readonly table?: readonly string[]
  readonly from?: string
  readonly concurrency?: number
  readonly attempts?: number
  readonly onDeadLetter?: AfterDeadLetter
  readonly format?: FormatName
  readonly once?: boolean
}

/** `trunkline relay` */
export function relayCommand(signal: AbortSignal): Command {
  return new Command('relay')
    .summary('deliver events and captured changes to a sink')
    .description(
      'Delivers what is committed, each key in order, at least once. Its place is kept under its name; processes of one name ' +
        'share the keys. Without --topic and --table: everything.',
    )
    .requiredOption('--name <name>', 'names the relay for good: its place in the log and its dead letters')
    .requiredOption('--sink <url>', "where to: a sink's URL, or the name of one in sinks of the configuration module")
    .option('--topic <topic>', 'only this topic; repeat for several', collect)
    .option('--table <table>', 'only this captured table; repeat for several', collect)
    .option('--from <place>', 'where a relay of a new name begins: beginning (default), now, or a position')
    .option('--concurrency <number>', 'calls of the sink at the same time; default 16', toCount)
    .option('--attempts <number>', 'attempts before a delivery becomes a dead letter; default 15', toCount)
    .addOption(
      new Option(
        '--on-dead-letter <policy>',
        'continue (default): the later ones of its key go on; hold: they wait',
      ).choices(['continue', 'hold']),
    )
    .addOption(
      new Option('--format <name>', 'how deliveries are written; default plain').choices([
        'plain',
        'cloudevents',
        'cloudevents-binary',
        'debezium',
      ]),
    )
    .option('--once', 'deliver all that is committed now, then exit: 1 when dead letters were made')
    .addHelpText(
      'after',
      `
Examples:
  trunkline relay --name orders --topic order --sink https://example.org/hooks/orders
  trunkline relay --name audit --table app.orders --sink file:orders.ndjson --once`,
    )
    .action(async (options: Options, command: Command) => {
      await withContext(command, signal, async (context) => {
        await using trunkline = createTrunkline({
          pool: context.pool(),
          schema: context.schema,
          listenUrl: context.listenUrl,
          logger: context.logger,
        })
        const relay = trunkline.relay({
          name: options.name,
          sink: sinkOf(options.sink, context),
          topics: options.topic,
          tables: options.table,
          from: options.from,
          concurrency: options.concurrency,
          attemptsMax: options.attempts,
          onDeadLetter: options.onDeadLetter,
          format: options.format,
        })
        await run(relay, context, options)
      })
    })
}

async function run(relay: Relay, context: CommandContext, options: Options): Promise<void> {
  let deadLetters = 0
  relay.on('dead-letter', () => {
    deadLetters += 1
  })
  const output = closedOutput(options.sink)
  const signal = AbortSignal.any([context.signal, output])
  // Also while it starts.
  context.signal.addEventListener('abort', () => void relay.stop())
  await relay.start()
  try {
    if (options.once === true) await relay.drained(signal)
    else if (!signal.aborted) await Promise.race([once(signal, 'abort'), untilBroken(relay)])
  } finally {
    await relay.stop()
    // Standard output may be the sink's.
    const summary = { relay: relay.name, delivered: relay.deliveredCount, deadLetters }
    context.logger.info(`Delivered ${summary.delivered}, dead letters ${deadLetters}.`, { relay: relay.name })
    if (context.isJson && !isStdout(options.sink)) context.print(summary, undefined)
  }
  if (output.aborted) {
    context.logger.error(
      'Nobody reads standard output any more. What was not confirmed is delivered at the next start.',
    )
  }
  // A script that runs it once wants to know that not all has arrived.
  if (output.aborted || (options.once === true && deadLetters > 0)) throw new CommandFailed()
}

function isStdout(sink: string): boolean {
  return sink.startsWith('stdout:')
}

/** Aborts when standard output is the sink and nobody reads it any more (trunkline relay … | head): only another start mends that. */
function closedOutput(sink: string): AbortSignal {
  const closed = new AbortController()
  if (isStdout(sink)) process.stdout.once('error', () => closed.abort())
  return closed.signal
}

/** Ends the command when nothing but another start can mend it. */
async function untilBroken(relay: Relay): Promise<void> {
  await new Promise<never>((_, reject) => {
    relay.on('error', () => {
      // The relay has told why.
      if (relay.failure !== undefined) reject(new CommandFailed())
    })
  })
}

function sinkOf(name: string, context: CommandContext): Sink | string {
  const configured = context.sinks[name]
  if (configured !== undefined) return configured
  if (/^[a-z][a-z0-9+.-]*:/i.test(name)) return name
  const known = Object.keys(context.sinks)
  throw new InvalidInputError(`The sink "${name}" is neither a URL nor one of the configuration module.`, {
    code: 'unknown_sink',
    hint: `Write a URL, for example file:events.ndjson${known.length > 0 ? `, or one of ${known.join(', ')}` : ''}.`,
  })
}

function toCount(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count > 0) return count
  throw new InvalidArgumentError('Expected a whole number above 0.')
}
