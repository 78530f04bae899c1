import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { describeEachPostgres, eventually, useDatabase } from '../support/index.ts'

const example = fileURLToPath(new URL('../../examples/reference-data.ts', import.meta.url))

describeEachPostgres('examples/reference-data.ts', (server) => {
  const database = useDatabase(server)

  test('holds the table, tells a change, and ends on SIGTERM', async () => {
    const { url } = database()
    const run = (sql: string): Promise<unknown> => database().query(sql)
    await run('create table common_code (group_cd text, code text, name text not null, primary key (group_cd, code))')
    await run(`insert into common_code values ('COUNTRY', 'KR', 'Korea'), ('CURRENCY', 'KRW', 'Won')`)

    const app = spawn(process.execPath, [example], {
      env: { ...process.env, DATABASE_URL: url },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const ended = once(app, 'exit')
    let output = ''
    app.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    await eventually(() => output.includes('Korea is called Korea'), { timeoutMs: 20_000, what: 'the example is up' })
    expect(output).toContain('2 codes in memory; 1 of them are countries')

    await run(`begin; update common_code set name = 'Nobody knows' where code = 'KR'; rollback`)
    await run(`update common_code set name = 'South Korea' where code = 'KR'`)
    await eventually(() => output.includes('update Korea -> South Korea'), { what: 'the change is told' })
    expect(output).not.toContain('Nobody')

    app.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
  })
})
