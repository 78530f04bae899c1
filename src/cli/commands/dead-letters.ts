import { Command } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import { toTrunklineError } from '../../postgres/index.ts'
import { type DeadLetter, DeadLetters, deadLettersListMax } from '../../relay/index.ts'
import { checkSchema } from '../../schema/index.ts'
import { type CommandContext, queryable, withContext } from '../context.ts'
import { textOfAge, textTable } from '../table.ts'

interface Options {
  readonly relay?: string
  readonly all?: boolean
  readonly after?: string
}

type Work = (letters: DeadLetters, context: CommandContext, options: Options, ids: readonly string[]) => Promise<void>

/** `trunkline dead-letters` */
export function deadLettersCommand(signal: AbortSignal): Command {
  const group = new Command('dead-letters')
    .summary('deliveries that relays gave up: list, show, redrive, discard')
    .description('Looks at deliveries that relays gave up, has them attempted again, or forgets them.')
    .addHelpText(
      'after',
      `
Examples:
  trunkline dead-letters list --relay orders
  trunkline dead-letters redrive 17 18
  trunkline dead-letters discard --relay orders --all`,
    )
  const add = (name: string, summary: string, work: Work): Command =>
    group
      .command(name)
      .summary(summary)
      .description(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`)
      .exitOverride()
      .option('--relay <name>', 'only those of this relay')
      .action(async (...values: unknown[]) => {
        const command = values.at(-1) as Command
        await withContext(command, signal, async (context) => {
          const db = queryable(context)
          await checkSchema(db, context.schema)
          try {
            await work(new DeadLetters(db, context.schema), context, command.opts<Options>(), command.args)
          } catch (error) {
            throw toTrunklineError(error, `Dead letters: ${name}`)
          }
        })
      })
  add('list', 'list dead letters, the oldest first', list).option(
    '--after <id>',
    `go on behind this one: ${deadLettersListMax} are listed at once`,
  )
  add('show', 'show a dead letter with its error and its change', show).argument('<id>', 'as list prints it')
  add('redrive', 'have dead letters attempted again', redrive)
    .argument('[ids...]', 'as list prints them')
    .option('--all', 'all, or all of --relay')
  add('discard', 'forget dead letters for good', discard)
    .argument('[ids...]', 'as list prints them')
    .option('--all', 'all, or all of --relay')
  return group
}

const list: Work = async (letters, context, { relay, after }) => {
  const found = await letters.list({ relay, after })
  if (context.isJson) for (const letter of found) context.print({ ...letter }, undefined)
  else context.print({}, found.length === 0 ? 'No dead letters.' : textOfLetters(found))
}

const show: Work = async (letters, context, _options, [id = '']) => {
  const { change, ...letter } = await letters.show(id)
  // The change as it is stored: its numbers may have more digits than JavaScript's.
  if (context.isJson) process.stdout.write(`${JSON.stringify(letter).slice(0, -1)},"change":${change}}\n`)
  else {
    const lines = Object.entries(letter).map(([name, value]) => [
      name,
      value instanceof Date ? value.toISOString() : String(value),
    ])
    context.print({}, `${textTable(['FIELD', 'VALUE'], lines)}\n\n${change}`)
  }
}

const redrive: Work = async (letters, context, options, ids) => {
  const count = await letters.redrive(filterOf(options, ids), context.signal)
  context.print({ redriven: count }, `${count} redriven: their relay attempts them again.`)
}

const discard: Work = async (letters, context, options, ids) => {
  const count = await letters.discard(filterOf(options, ids), context.signal)
  context.print({ discarded: count }, `${count} discarded.`)
}

function filterOf(
  { relay, all }: Options,
  ids: readonly string[],
): { relay?: string | undefined; ids?: readonly string[] } {
  if ((all === true) === ids.length > 0) {
    throw new InvalidInputError(ids.length > 0 ? 'Both ids and --all were given.' : 'No dead letter was named.', {
      code: 'invalid_argument',
      hint: 'Pass ids as list prints them, or --all (with --relay for those of one relay).',
    })
  }
  return ids.length > 0 ? { relay, ids } : { relay }
}

function textOfLetters(letters: readonly DeadLetter[]): string {
  return textTable(
    ['ID', 'RELAY', 'TOPIC', 'KEY', 'ATTEMPTS', 'DEAD FOR', 'ERROR'],
    letters.map((letter) => [
      letter.id,
      letter.relay,
      letter.topic,
      `${letter.key ?? '-'}${letter.holds ? ' (held)' : ''}`,
      String(letter.attempts),
      textOfAge(letter.deadAt),
      (letter.error ?? '').replaceAll(/\s+/g, ' ').slice(0, 80),
    ]),
  )
}
