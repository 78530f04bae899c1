import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { install } from '../log/captured.ts'
import { describeEachPostgres, useDatabase } from '../support/index.ts'

const root = join(import.meta.dirname, '../..')
const examples = [...readFileSync(join(root, 'docs/aggregates.md'), 'utf8').matchAll(/```ts\n([^]*?)```/g)].map(
  ([, text = '']) => text,
)

/** What the examples of the document have from elsewhere in it. */
const preludes: Readonly<Record<number, string>> = {
  2: 'const url = process.env.DATABASE_URL\n',
  3: `class AlreadyShipped extends Error {}
    const initialState = { status: 'none', lines: [] }
    const evolve = (state: { status: string; lines: never[] }, event: { type: 'opened' | 'shipped'; payload: null }) => ({ ...state, status: event.type })
    const opened = { type: 'opened', payload: null } as const
    const shipped = { type: 'shipped', payload: null } as const
    const upcasters = [] as const
    const decide = (state: { status: string }, _command: { do: 'ship' }) => {
      if (state.status === 'shipped') throw new AlreadyShipped()
      return shipped
    }\n`,
}

describeEachPostgres('docs/aggregates.md', (server) => {
  const database = useDatabase(server)

  /** Runs an example as a program in a process of its own, and gives what it prints. */
  async function run(index: number, ending: string): Promise<string> {
    mkdirSync(join(root, '.tmp'), { recursive: true })
    const directory = mkdtempSync(join(root, '.tmp/document-'))
    try {
      const file = join(directory, 'example.ts')
      const text = `${preludes[index] ?? ''}${examples[index] ?? ''}${ending}`
        .replaceAll(`'trunkline'`, `'../../src/index.ts'`)
        .replaceAll(`'trunkline/testing'`, `'../../src/testing/index.ts'`)
      writeFileSync(file, text)
      const env = { ...process.env, DATABASE_URL: database().url, MASTER_KEY: Buffer.alloc(32, 7).toString('base64') }
      const { stdout } = await promisify(execFile)(process.execPath, [file], { env })
      return stdout
    } finally {
      rmSync(directory, { recursive: true })
    }
  }

  test('its examples run, and do what they say', async () => {
    await install(database().url)
    expect(examples).toHaveLength(4)
    expect(await run(0, '\nawait trunkline.stop()')).toBe('shipped 3 open\n')
    expect(await run(1, '\nconsole.log(upcasters.length)')).toBe('3\n')
    expect(await run(2, '\nawait trunkline.stop()')).toBe('true\n')
    expect(await run(3, `\nconsole.log('held')`)).toBe('held\n')
  })
})
