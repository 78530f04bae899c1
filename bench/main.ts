import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import type { EmbeddedPostgresVersion } from '../src/testing/index.ts'
import * as cacheReads from './cache-reads.ts'
import * as eventsLosses from './events-losses.ts'
import * as eventsReplay from './events-replay.ts'
import * as events from './events.ts'
import * as firstCopy from './first-copy.ts'
import * as fleet from './fleet.ts'
import * as latency from './latency.ts'
import * as pageCost from './page-cost.ts'
import * as relay from './relay.ts'
import * as routing from './routing.ts'
import { type Benchmark, type Figure, isReached } from './support/benchmark.ts'
import { loadGenerator } from './support/load.ts'
import { figureJson, figureTable } from './support/report.ts'
import { createDatabase, startServer } from './support/server.ts'
import * as writeCost from './write-cost.ts'

const benchmarks: readonly Benchmark[] = [
  writeCost,
  latency,
  firstCopy,
  cacheReads,
  pageCost,
  fleet,
  relay,
  routing,
  events,
  eventsReplay,
  eventsLosses,
]
const versions: readonly EmbeddedPostgresVersion[] = ['12', '18']

const help = `Usage: npm run bench -- [names…] [--version 12|18] [--json] [--quick]

Without names all are run, without --version on PostgreSQL 12 and 18. --json prints one object a figure on standard
output. --quick takes short rounds: it shows that a benchmark works and proves nothing. Exit 1: a target was missed.

${benchmarks.map(({ name, summary }) => `  ${name.padEnd(12)} ${summary}`).join('\n')}
`

interface Selection {
  readonly benchmarks: readonly Benchmark[]
  readonly versions: readonly EmbeddedPostgresVersion[]
  readonly isJson: boolean
  readonly isQuick: boolean
}

function parse(args: readonly string[]): Selection | undefined {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      version: { type: 'string', multiple: true },
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const names = benchmarks.map(({ name }) => name)
  const unknown = positionals.find((name) => !names.includes(name))
  if (unknown !== undefined) throw new Error(`There is no benchmark "${unknown}". There are: ${names.join(', ')}.`)
  const wanted = values.version ?? versions
  const known = versions.filter((version) => wanted.includes(version))
  if (known.length < wanted.length)
    throw new Error(`--version is ${wanted.join(', ')}, expected ${versions.join(' or ')}.`)
  return {
    benchmarks: benchmarks.filter(({ name }) => positionals.length === 0 || positionals.includes(name)),
    versions: known,
    isJson: values.json,
    isQuick: values.quick,
  }
}

async function run(
  benchmark: Benchmark,
  version: EmbeddedPostgresVersion,
  isQuick: boolean,
): Promise<readonly Figure[]> {
  await using server = await startServer(version, benchmark.settings)
  let databases = 0
  return await benchmark.run({
    version,
    server,
    isQuick,
    createDatabase: async () => createDatabase(server, `bench_${(databases += 1)}`),
    progress: (line) => console.error(`  ${line}`),
  })
}

/** What else ran here just before: other work makes every figure worse and less sure. */
function machine(): string {
  return `${availableParallelism()} processors, load average ${loadavg()[0]?.toFixed(1)}`
}

async function runAll({ benchmarks: wanted, versions: on, isJson, isQuick }: Selection): Promise<boolean> {
  let allReached = true
  for (const benchmark of wanted) {
    for (const version of on) {
      console.error(`${benchmark.name} on PostgreSQL ${version}, load by ${loadGenerator}; ${machine()}`)
      const figures = await run(benchmark, version, isQuick)
      allReached &&= figures.every((figure) => isReached(figure) !== false)
      if (isJson) for (const figure of figures) console.log(figureJson(benchmark.name, version, figure))
      else
        console.log(`\n${benchmark.name}, PostgreSQL ${version}${isQuick ? ', quick' : ''}\n${figureTable(figures)}\n`)
    }
  }
  return allReached
}

function parseOrExplain(args: readonly string[]): Selection | undefined {
  try {
    return parse(args)
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n\n${help}`)
    process.exit(2)
  }
}

const selection = parseOrExplain(process.argv.slice(2))
if (selection === undefined) console.log(help)
else if (!(await runAll(selection))) process.exitCode = 1
