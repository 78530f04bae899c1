import { Command, InvalidArgumentError } from 'commander'
import { messageOf } from '../../core/index.ts'
import { emit, JsonText } from '../../outbox/index.ts'
import { queryable, withContext } from '../context.ts'

interface Options {
  readonly topic: string
  readonly key?: string
  readonly type?: string
  readonly payload: JsonText
  readonly header?: Readonly<Record<string, string>>
}

/** `trunkline emit` */
export function emitCommand(signal: AbortSignal): Command {
  return new Command('emit')
    .summary('write an event to the log')
    .description('Writes an event to the log, in a transaction of its own. Prints its id.')
    .requiredOption('--topic <topic>', 'where it is routed to')
    .option('--key <key>', 'what it is about: events of one topic and key keep their order')
    .option('--type <type>', 'what happened')
    .requiredOption('--payload <json>', 'any JSON value', toJson)
    .option('--header <name=value>', 'a header; repeat for several', toHeader)
    .addHelpText(
      'after',
      `
Example:
  trunkline emit --topic order --key 42 --type created --payload '{"total": 9.90}' --header trace=abc`,
    )
    .action(async (options: Options, command: Command) => {
      await withContext(command, signal, async (context) => {
        const { topic, key, type, payload, header: headers } = options
        const id = await emit(queryable(context), context.schema, { topic, key, type, payload, headers })
        context.print({ id, topic, key: key ?? null, type: type ?? null }, id)
      })
    })
}

function toJson(text: string): JsonText {
  try {
    return new JsonText(text)
  } catch (error) {
    throw new InvalidArgumentError(`It is no JSON: ${messageOf(error)}. A text needs its quotes: '"text"'.`)
  }
}

function toHeader(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const place = text.indexOf('=')
  if (place <= 0) throw new InvalidArgumentError('Expected name=value.')
  return { ...before, [text.slice(0, place)]: text.slice(place + 1) }
}
