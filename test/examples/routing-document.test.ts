import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startFleet } from '../routing/fleet.ts'
import { describeEachVersion } from '../support/index.ts'

const root = join(import.meta.dirname, '../..')

function examplesOf(file: string): string[] {
  return Array.from(readFileSync(join(root, file), 'utf8').matchAll(/```ts\n([^]*?)```/g), ([, text = '']) => text)
}

/** What the examples have from elsewhere. */
const prelude = `import { createServer } from 'node:http'
import Fastify from 'fastify'
import { Hono } from 'hono'
import { sql } from 'slonik'
import { createTrunkline } from '../../src/index.ts'
const url = process.env.DATABASE_URL ?? ''
const [standby1 = '', standby2 = ''] = (process.env.TRUNKLINE_REPLICA_URLS ?? '').split(',')
const job: { token?: string } = {}
const jobs: { customer: number; token: string | undefined }[] = []
const app = Fastify()
const hono = new Hono()
const handle = (_request: unknown, response: { end(text: string): void }): void => response.end('ok')
`

/** Runs a program in a process of its own, and gives what it prints. */
async function run(text: string, env: Readonly<Record<string, string>>): Promise<string> {
  mkdirSync(join(root, '.tmp'), { recursive: true })
  const directory = mkdtempSync(join(root, '.tmp/document-'))
  try {
    const file = join(directory, 'example.ts')
    writeFileSync(file, text)
    const { stdout } = await promisify(execFile)(process.execPath, [file], {
      env: { ...process.env, ...env },
      timeout: 60_000,
    })
    return stdout
  } finally {
    rmSync(directory, { recursive: true })
  }
}

describeEachVersion('the examples of routing in the documents', (version) => {
  test('they run, and do what they say', { timeout: 150_000 }, async () => {
    await using fleet = await startFleet(version, 2)
    await fleet.database.query(`create table orders (customer integer); insert into orders values (7);
      create table cart (id integer primary key, item integer); insert into cart values (7, 1)`)
    await fleet.caughtUp()
    const env = {
      DATABASE_URL: fleet.database.url,
      TRUNKLINE_REPLICA_URLS: fleet.replicaUrls.join(','),
      TOKEN_SECRET: 'a secret of the test, long enough',
    }
    const examples = examplesOf('docs/routing.md')
    expect(examples).toHaveLength(4)
    const ending = `
server.close()
console.log(orders, jobs[0]?.token?.split(':').length, count)
await db.end()
await trunkline.stop()`
    // One program: each goes on from those before. The last count may be of a replica that has not replayed the last row.
    const printed = await run([prelude, ...examples, ending].join('\n'), env)
    expect(printed).toMatch(/^\[ \{ customer: 7 \} \] 3 [1234]\n$/)
    const inReadme = examplesOf('README.md').find((text) => text.includes('routing.session'))
    const shown = inReadme?.replace('await trunkline.read', 'const seen = await trunkline.read')
    const told = await run(
      [prelude, shown?.replace(/\}\)\s*$/, 'console.log(seen.rows) })'), 'await trunkline.stop()'].join('\n'),
      env,
    )
    expect(told).toBe('[ { item: 42 } ]\n')
  })
})
