import type { Contender, Fold } from './event-stores/contender.ts'
import { openContenders } from './event-stores/open.ts'
import { snapshotLoad } from './event-stores/snapshot-load.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { median, ratios, spread } from './support/statistics.ts'

export const name = 'events-replay'
export const summary =
  'reading the whole event store, beside Emmett 0.42 and Message DB; a load from an aggregate snapshot'

const category = 'order'

/** A way to read all, and who can do it. */
interface Scenario {
  readonly name: string
  readonly contenders: readonly Contender[]
  readonly count: number
  readonly rounds: number
  readonly read: (contender: Contender) => Promise<Fold>
}

/** Every contender reads everything from the beginning, in turns, each in a database of its own on the same server. */
export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  const { isQuick, progress } = context
  await using stack = new AsyncDisposableStack()
  const contenders = await openContenders(context, stack)
  // Emmett reads no more: its pages get dearer with the table, which has no index for its order.
  const small = isQuick ? 5_000 : 50_000
  const large = isQuick ? 20_000 : 1_000_000
  for (const contender of contenders) await contender.fill(category, 0, small)
  progress(`wrote ${small} events`)
  const rounds = isQuick ? 1 : 3
  const figures = await compare(context, { name: 'replay', contenders, count: small, rounds, read: replay })
  const followers = contenders.filter((each) => each.follow !== undefined)
  if (followers.length > 1) {
    const scenario = { name: 'follow with a checkpoint', contenders: followers, count: small, rounds, read: follow }
    figures.push(...(await compare(context, scenario)))
  }
  const two = contenders.filter(({ name: who }) => who !== 'Emmett')
  for (const contender of two) await contender.fill(category, small, large)
  progress(`wrote ${large} events`)
  figures.push(
    ...(await compare(context, {
      name: 'replay',
      contenders: two,
      count: large,
      rounds: isQuick ? 1 : 2,
      read: replay,
    })),
  )
  return [...figures, ...(await snapshotLoad(context))]
}

async function replay(contender: Contender): Promise<Fold> {
  return contender.replay(category)
}

async function follow(contender: Contender): Promise<Fold> {
  return contender.follow?.() ?? { events: 0, quantity: 0 }
}

async function compare({ progress }: BenchmarkContext, scenario: Scenario): Promise<Figure[]> {
  const { contenders, count } = scenario
  const title = `${scenario.name} of ${count.toLocaleString('en')} events`
  const found = new Map<Contender, number[]>(contenders.map((each) => [each, []]))
  for (let round = 0; round < scenario.rounds; round += 1) {
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const begun = performance.now()
      const { events, quantity } = await scenario.read(contender)
      found.get(contender)?.push((1_000 * events) / (performance.now() - begun))
      // Quantities are 1 to 5 in turn.
      if (events !== count || quantity !== 3 * count)
        throw new Error(`${contender.name} gave ${events} events of ${count}, quantity ${quantity}.`)
    }
  }
  progress(`${title}: ${[...found].map(([each, rates]) => `${each.name} ${Math.round(median(rates))}/s`).join(', ')}`)
  const [own, ...peers] = [...found.values()]
  const against = ratios(
    own ?? [],
    own?.map((_, round) => Math.max(...peers.map((rates) => rates[round] ?? Number.NaN))) ?? [],
  )
  return [
    {
      name: `${title}: trunkline / the best of the others`,
      value: median(against),
      unit: 'ratio',
      spread: spread(against),
      target: { atLeast: 3 },
    },
    ...[...found].map(([each, rates]): Figure => ({
      name: `  ${each.name}: events`,
      value: median(rates),
      unit: 'per second',
      spread: spread(rates),
    })),
  ]
}
