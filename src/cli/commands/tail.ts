import { once } from 'node:events'
import { Command } from 'commander'
import { backoffMs, messageOf, pause } from '../../core/index.ts'
import { type Change, LogReader, ReaderRest } from '../../log/index.ts'
import { configFromUrl, isConnectionFailure } from '../../postgres/index.ts'
import { changeText } from '../change-text.ts'
import { type CommandContext, withContext } from '../context.ts'
import { collect } from '../options.ts'

interface Options {
  readonly table?: readonly string[]
  readonly topic?: readonly string[]
  readonly from?: string
  readonly once?: boolean
}

/** Milliseconds between looks where LISTEN does not work. */
const pollIntervalMs = 1_000
/** Milliseconds of rest after changes. */
const minIntervalMs = 10

/** `trunkline tail` */
export function tailCommand(signal: AbortSignal): Command {
  return new Command('tail')
    .summary('print the log as it grows')
    .description(
      'Prints changes and events as they are committed, each key in the order of its writers. Without --table and --topic: all.',
    )
    .option('--table <table>', 'only this captured table; repeat for several', collect)
    .option('--topic <topic>', 'only this topic; repeat for several', collect)
    .option(
      '--from <place>',
      'beginning (all that is still in the log), now, or the position of a line printed before; ' +
        'default: now, with --once beginning',
    )
    .option('--once', 'print what is committed now, then exit')
    .addHelpText(
      'after',
      `
Examples:
  trunkline tail --table common_code
  trunkline tail --once --json --from beginning | jq -r .table | sort | uniq -c`,
    )
    .action(async (options: Options, command: Command) => {
      await withContext(command, signal, async (context) => {
        const reader = await LogReader.open(context.pool(), {
          schema: context.schema,
          from: options.from ?? (options.once === true ? 'beginning' : 'now'),
          tables: options.table,
          topics: options.topic,
          decoding: 'json',
        })
        using printer = new Printer(context)
        if (options.once === true) await printer.printPresent(reader)
        else await follow(context, reader, printer)
      })
    })
}

/** Standard output for changes, until it is not wanted any more. */
class Printer implements Disposable {
  readonly #context: CommandContext
  readonly #onEnd: (() => void)[] = []
  #isBroken = false

  constructor(context: CommandContext) {
    this.#context = context
    context.signal.addEventListener('abort', this.#end)
    process.stdout.on('error', this.#break)
  }

  /** False: a signal came, or whoever reads our output stopped reading (trunkline tail | head). */
  get isWanted(): boolean {
    return !this.#context.signal.aborted && !this.#isBroken
  }

  /** Calls back when output is not wanted any more. */
  onEnd(action: () => void): void {
    this.#onEnd.push(action)
  }

  async print(change: Change): Promise<void> {
    if (this.#isBroken) return
    const isFull = !process.stdout.write(`${this.#context.isJson ? JSON.stringify(change) : changeText(change)}\n`)
    // What breaks it is heard by #break.
    if (isFull) await once(process.stdout, 'drain').catch(() => undefined)
  }

  /** Prints all that is committed. True: there was something. */
  async printPresent(reader: LogReader): Promise<boolean> {
    let hasChanged = false
    while (this.isWanted) {
      const batch = await reader.next()
      hasChanged ||= batch.changes.length > 0
      for (const change of batch.changes) await this.print(change)
      if (batch.level) break
    }
    return hasChanged
  }

  [Symbol.dispose](): void {
    this.#context.signal.removeEventListener('abort', this.#end)
    process.stdout.off('error', this.#break)
  }

  readonly #end = (): void => {
    for (const action of this.#onEnd) action()
  }

  readonly #break = (): void => {
    this.#isBroken = true
    this.#end()
  }
}

async function follow(context: CommandContext, reader: LogReader, printer: Printer): Promise<void> {
  const { schema, logger } = context
  await using rest = new ReaderRest({
    schema,
    queryable: context.pool(),
    config: listenConfig(context),
    topicIds: reader.selection?.ids,
    pollIntervalMs,
    minIntervalMs,
    logger,
  })
  printer.onEnd(() => rest.wake())
  await rest.start()
  for (let failures = 0; printer.isWanted;) {
    try {
      const hasChanged = await printer.printPresent(reader)
      failures = 0
      if (printer.isWanted) await rest.after(hasChanged)
    } catch (error) {
      // The position is kept: a server that restarts is waited for.
      if (!isConnectionFailure(error)) throw error
      failures += 1
      if (failures === 1) logger.warn(`Reading the log failed, trying again: ${messageOf(error)}`)
      await pause(backoffMs(failures))
    }
  }
}

function listenConfig(context: CommandContext): ReturnType<typeof configFromUrl> | false {
  if (context.listenUrl === false) return false
  return context.listenUrl === undefined
    ? context.pool().options
    : configFromUrl(context.listenUrl, 'TRUNKLINE_LISTEN_URL')
}
