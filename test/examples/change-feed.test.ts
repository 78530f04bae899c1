import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { describeEachPostgres, eventually, useDatabase } from '../support/index.ts'

const example = fileURLToPath(new URL('../../examples/change-feed.ts', import.meta.url))

interface Line {
  readonly topic: string
  readonly key: string
  readonly value: { readonly op: string; readonly before: unknown; readonly after: unknown }
}

describeEachPostgres('examples/change-feed.ts', (server) => {
  const database = useDatabase(server)

  test('writes envelopes of what commits, and ends on SIGTERM', async () => {
    const app = spawn(process.execPath, [example], {
      env: { ...process.env, DATABASE_URL: database().url, SINK: 'stdout:' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = once(app, 'exit')
    let output = ''
    let messages = ''
    app.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
    app.stderr.setEncoding('utf8').on('data', (text: string) => (messages += text))
    await eventually(() => messages.includes('following account'), { timeoutMs: 20_000, what: 'the example is up' })
    const run = (sql: string): Promise<unknown> => database().query(sql)
    await run(`insert into account values (1, 'Ada', 10.50)`)
    await run(`begin; update account set balance = 0; rollback`)
    await run(`update account set balance = 20`)
    await run(`delete from account`)
    await eventually(() => output.split('\n').length > 3, { what: 'three envelopes' })
    app.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    const lines = output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line)
    expect(lines).toMatchObject([
      {
        topic: 'shop.public.account',
        key: '{"id":1}',
        value: { op: 'c', before: null, after: { id: 1, balance: '10.50' } },
      },
      { value: { op: 'u', before: { balance: '10.50' }, after: { balance: '20' } } },
      { value: { op: 'd', before: { id: 1, owner: 'Ada' }, after: null } },
    ])
  })
})
