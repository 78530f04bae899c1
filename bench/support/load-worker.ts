import { workerData } from 'node:worker_threads'
import pg from 'pg'
import { loadName } from './load.ts'

/** One thread of the load generator that stands in for pgbench: see LoadOptions. */
interface WorkerInput {
  readonly url: string
  readonly script: string
  readonly clients: number
  /** Shared; not 0: end. */
  readonly stopped: Int32Array
}

interface Statement {
  readonly name: string
  readonly text: string
  readonly variables: readonly string[]
}

interface Variable {
  readonly name: string
  readonly low: number
  readonly high: number
}

const { url, script, clients, stopped } = workerData as WorkerInput
const lines = script.split('\n').filter((line) => line.trim() !== '')
const variables = lines.filter((line) => line.startsWith(String.raw`\set `)).map(parseVariable)
const statements = lines.filter((line) => !line.startsWith('\\')).map(parseStatement)

await Promise.all(Array.from({ length: clients }, runClient))

async function runClient(): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: loadName })
  await client.connect()
  while (Atomics.load(stopped, 0) === 0) {
    const values = new Map(
      variables.map(({ name, low, high }) => [name, low + Math.floor(Math.random() * (high - low + 1))]),
    )
    for (const { name, text, variables: used } of statements) {
      await client.query({ name, text, values: used.map((variable) => values.get(variable)) })
    }
  }
  await client.end()
}

function parseVariable(line: string): Variable {
  const [, name = '', low, high] = /^\\set (\w+) random\((\d+), (\d+)\)$/.exec(line) ?? []
  if (name === '') throw new Error(`The load generator does not understand: ${line}`)
  return { name, low: Number(low), high: Number(high) }
}

function parseStatement(line: string, place: number): Statement {
  const used: string[] = []
  const text = line.replace(/;\s*$/, '').replaceAll(/(?<!:):(\w+)/g, (_, name: string) => `$${used.push(name)}`)
  return { name: `load_${place}`, text, variables: used }
}
