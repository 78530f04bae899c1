import { Command } from 'commander'
import { InvalidInputError } from '../../core/index.ts'
import { toTrunklineError } from '../../postgres/index.ts'
import {
  type ParkedEvent,
  ParkedEvents,
  parkedListMax,
  type Projection,
  projectionLagMax,
  type ProjectionStatus,
  projectionStatuses,
} from '../../projections/index.ts'
import { checkSchema } from '../../schema/index.ts'
import { createTrunkline } from '../../trunkline.ts'
import { printable } from '../change-text.ts'
import { type CommandContext, queryable, withContext } from '../context.ts'
import { textOfAge, textOfSeconds, textTable } from '../table.ts'

interface Options {
  readonly resume?: boolean
  readonly all?: boolean
  readonly after?: string
}

type Work = (context: CommandContext, options: Options, args: readonly string[]) => Promise<void>

/** `trunkline projections` */
export function projectionsCommand(signal: AbortSignal): Command {
  const group = new Command('projections')
    .summary('read models made of events: list, rebuild, parked events')
    .description(
      'Shows projections, rebuilds one with the handlers of the configuration module (projections), and looks after the\nevents that they have parked.',
    )
    .addHelpText(
      'after',
      `
Examples:
  trunkline projections list
  trunkline projections rebuild order_list --config trunkline.config.ts
  trunkline projections parked order_list --json
  trunkline projections retry order_list 17`,
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
          try {
            await work(context, command.opts<Options>(), command.args)
          } catch (error) {
            throw toTrunklineError(error, `Projections: ${name}`)
          }
        })
      })
  add('list', 'list projections, how far they are and what fails', list)
  add('rebuild', 'make a read model anew beside the live one, and swap it in', rebuild)
    .argument('<name>', 'one of projections in the configuration module')
    .option('--resume', 'carry on a build that nobody works on, of the same handlers')
  add('parked', 'list events that were put aside, in their order', parked)
    .argument('[name]', 'only those of this projection')
    .option('--after <position>', `go on behind this one: ${parkedListMax} are listed at once`)
  add('retry', 'have parked events handled again, with those behind them', request('retry'))
    .argument('<name>', 'the projection')
    .argument('[ids...]', 'as parked prints them')
    .option('--all', 'all of the projection')
  add('discard', 'pass parked events over for good', request('discard'))
    .argument('<name>', 'the projection')
    .argument('[ids...]', 'as parked prints them')
    .option('--all', 'all of the projection')
  return group
}

const list: Work = async (context) => {
  const found = await projectionStatuses(queryable(context), context.schema)
  if (context.isJson) for (const projection of found) context.print({ ...projection }, undefined)
  else context.print({}, textOfProjections(found))
}

const rebuild: Work = async (context, { resume }, [name = '']) => {
  await using trunkline = createTrunkline({
    pool: context.pool(),
    schema: context.schema,
    listenUrl: context.listenUrl,
    logger: context.logger,
  })
  const { projections } = context
  const made: readonly Projection[] =
    typeof projections === 'function'
      ? projections(trunkline)
      : projections.map((options) => trunkline.projection(options))
  const projection = made.find((one) => one.name === name)
  if (projection === undefined) {
    throw new InvalidInputError(`The configuration module has no projection ${JSON.stringify(name)}.`, {
      code: 'unknown_projection',
      hint:
        made.length === 0
          ? 'Let it export them: export default { projections: [{ name, mode, tables, handlers }] }.'
          : `It has: ${made.map((one) => one.name).join(', ')}.`,
    })
  }
  const began = performance.now()
  await projection.rebuild({ resume, signal: context.signal })
  const seconds = (performance.now() - began) / 1_000
  context.print(
    { projection: name, version: projection.version, seconds },
    `${printable(name)} was rebuilt in ${textOfSeconds(seconds)}: version ${projection.version} is live.`,
  )
}

const parked: Work = async (context, { after }, [name]) => {
  const found = await new ParkedEvents(() => queryable(context), context.schema, name).list({ after })
  if (context.isJson) for (const event of found) context.print({ ...event }, undefined)
  else context.print({}, found.length === 0 ? 'No parked events.' : textOfParked(found))
}

function request(what: 'retry' | 'discard'): Work {
  return async (context, { all }, [name = '', ...ids]) => {
    if ((all === true) === ids.length > 0) {
      throw new InvalidInputError(ids.length > 0 ? 'Both ids and --all were given.' : 'No parked event was named.', {
        code: 'invalid_argument',
        hint: 'Pass ids as projections parked prints them, or --all.',
      })
    }
    const events = new ParkedEvents(() => queryable(context), context.schema, name)
    const count = await events[what](ids.length > 0 ? { ids } : {})
    const done = what === 'retry' ? 'handled again' : 'passed over'
    context.print(
      { projection: name, [what]: count },
      `${count} will be ${done} by the process that runs ${printable(name)}.`,
    )
  }
}

/** For `status`, too. */
export function textOfProjections(projections: readonly ProjectionStatus[]): string {
  if (projections.length === 0) return 'No projection.'
  return textTable(
    ['PROJECTION', 'MODE', 'VERSION', 'STATE', 'POSITION', 'BEHIND', 'OLDEST', 'PARKED', 'PROCESSES', 'ERROR'],
    projections.map((one) => [
      printable(one.name),
      one.mode,
      one.building === null ? String(one.version) : `${one.version} (building ${one.building.version})`,
      one.state,
      one.position ?? '-',
      `${one.lagEvents}${one.lagEvents >= projectionLagMax ? '+' : ''} events`,
      one.lagSeconds === null ? '-' : textOfSeconds(one.lagSeconds),
      String(one.parked),
      one.mode === 'inline' ? 'who appends' : one.processes.join(', ') || 'none runs',
      one.error === null ? '-' : `${one.error.attempts} attempts: ${printable(one.error.message).slice(0, 120)}`,
    ]),
  )
}

function textOfParked(events: readonly ParkedEvent[]): string {
  return textTable(
    ['ID', 'PROJECTION', 'STREAM', 'VERSION', 'TYPE', 'POSITION', 'ATTEMPTS', 'PARKED FOR', 'ERROR'],
    events.map((event) => [
      event.id,
      printable(event.projection),
      printable(event.stream),
      String(event.version),
      printable(event.type),
      event.position,
      event.attempts === 0 ? 'waits' : String(event.attempts),
      textOfAge(event.parkedAt),
      printable(event.error ?? '').slice(0, 120),
    ]),
  )
}
