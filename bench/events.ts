import { clients, type Contender, itemOf } from './event-stores/contender.ts'
import { openContenders } from './event-stores/open.ts'
import type { BenchmarkContext, Figure } from './support/benchmark.ts'
import { median, quantile, ratios, spread } from './support/statistics.ts'

export const name = 'events'
export const summary =
  'the event store beside Emmett 0.42 and Message DB: append of 1 and of 100, load of a stream of 1,000'

const streamLength = 1_000

/** One way to use a store, repeated by some clients. */
interface Scenario {
  readonly name: string
  readonly clients: number
  readonly atLeast?: number
  /** Does it once, for the given client and the n-th time; returns the number of events. */
  readonly act: (contender: Contender, client: number, n: number) => Promise<number>
}

const scenarios: readonly Scenario[] = [
  {
    name: 'append 1, new stream',
    clients,
    atLeast: 1.5,
    act: (contender, client, n) => append(contender, `new${client}-${client}x${n}`, 0, 1),
  },
  {
    // Message DB locks the category.
    name: 'append 1, new stream, all of one category',
    clients,
    act: (contender, client, n) => append(contender, `one-${client}x${n}`, 0, 1),
  },
  {
    name: 'append 1, own stream with expected version',
    clients,
    atLeast: 1.5,
    act: (contender, client, n) => append(contender, `own${client}-${client}`, n, 1),
  },
  {
    name: 'append 100, new stream',
    clients,
    atLeast: 2,
    act: (contender, client, n) => append(contender, `batch${client}-${client}x${n}`, 0, 100),
  },
  { name: `load a stream of ${streamLength}`, clients: 1, atLeast: 3, act: load },
]

async function append(contender: Contender, stream: string, version: number, count: number): Promise<number> {
  await contender.append(
    stream,
    version,
    Array.from({ length: count }, (_, place) => itemOf(version + place)),
  )
  return count
}

async function load(contender: Contender): Promise<number> {
  const { events, quantity } = await contender.load('loaded-1')
  if (events !== streamLength || quantity !== 3 * streamLength)
    throw new Error(`${contender.name} loaded ${events} events of ${streamLength}, quantity ${quantity}.`)
  return events
}

/** What one contender did in one scenario, by round. */
interface Found {
  readonly perSecond: number[]
  readonly p50: number[]
  readonly p99: number[]
}

/** Rounds of equal length, the contenders in turns, each in a database of its own on the same server. */
export async function run(context: BenchmarkContext): Promise<readonly Figure[]> {
  await using stack = new AsyncDisposableStack()
  const contenders = await openContenders(context, stack)
  const appended = new Map<Contender, number>()
  for (const contender of contenders) {
    for (let version = 0; version < streamLength; version += 100) await append(contender, 'loaded-1', version, 100)
    appended.set(contender, streamLength)
  }
  const figures: Figure[] = []
  for (const scenario of scenarios) figures.push(...(await compare(context, contenders, { scenario, appended })))
  for (const [contender, count] of appended) {
    const stored = await contender.stored()
    if (stored !== count) throw new Error(`${contender.name} has ${stored} events, and was given ${count}.`)
  }
  return figures
}

async function compare(
  { isQuick, progress }: BenchmarkContext,
  contenders: readonly Contender[],
  { scenario, appended }: { readonly scenario: Scenario; readonly appended: Map<Contender, number> },
): Promise<Figure[]> {
  const found = new Map<Contender, Found>(contenders.map((each) => [each, { perSecond: [], p50: [], p99: [] }]))
  const turns = new Map(contenders.map((each) => [each, Array.from({ length: scenario.clients }, () => 0)]))
  const rounds = isQuick ? 2 : 5
  // The first one is of connections without plans, and of code that is not compiled yet.
  for (let round = -1; round < rounds; round += 1) {
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const lap = await runRound(scenario, contender, turns.get(contender) ?? [], isQuick ? 200 : 1_500)
      if (!scenario.name.startsWith('load')) appended.set(contender, (appended.get(contender) ?? 0) + lap.events)
      if (round < 0) continue
      const each = found.get(contender)
      each?.perSecond.push(lap.perSecond)
      each?.p50.push(quantile(lap.times, 0.5))
      each?.p99.push(quantile(lap.times, 0.99))
    }
  }
  const rates = [...found].map(([each, { perSecond }]) => `${each.name} ${Math.round(median(perSecond))}/s`)
  progress(`${scenario.name}: ${rates.join(', ')}`)
  return figuresOf(scenario, found)
}

interface Lap {
  readonly events: number
  readonly perSecond: number
  /** Milliseconds of each call. */
  readonly times: readonly number[]
}

async function runRound(scenario: Scenario, contender: Contender, turns: number[], lapMs: number): Promise<Lap> {
  const begun = performance.now()
  const times: number[] = []
  let events = 0
  await Promise.all(
    turns.map(async (_, client) => {
      for (let at = performance.now(); at - begun < lapMs;) {
        const turn = turns[client] ?? 0
        turns[client] = turn + 1
        const count = await scenario.act(contender, client, turn)
        events += count
        const now = performance.now()
        times.push(now - at)
        at = now
      }
    }),
  )
  return { events, perSecond: (1_000 * events) / (performance.now() - begun), times }
}

function figuresOf(scenario: Scenario, found: ReadonlyMap<Contender, Found>): Figure[] {
  const title = scenario.clients === 1 ? scenario.name : `${scenario.name}, ${scenario.clients} clients`
  const [own, ...peers] = [...found.values()].map(({ perSecond }) => perSecond)
  const best = own?.map((_, round) => Math.max(...peers.map((each) => each[round] ?? Number.NaN))) ?? []
  const against = ratios(own ?? [], best)
  return [
    {
      name: `${title}: trunkline / the best of the others`,
      value: median(against),
      unit: 'ratio',
      spread: spread(against),
      target: scenario.atLeast === undefined ? undefined : { atLeast: scenario.atLeast },
    },
    ...[...found].flatMap(([{ name: who }, { perSecond, p50, p99 }]): Figure[] => [
      { name: `  ${who}: events`, value: median(perSecond), unit: 'per second', spread: spread(perSecond) },
      { name: `  ${who}: p50 of a call`, value: median(p50), unit: 'ms', spread: spread(p50) },
      { name: `  ${who}: p99 of a call`, value: median(p99), unit: 'ms', spread: spread(p99) },
    ]),
  ]
}
