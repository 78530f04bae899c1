import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { open, prepare } from '../projections/projecting.ts'
import { describeEachPostgres, eventually, useDatabase } from '../support/index.ts'
import { objectsOf, type Run, trunkline } from './trunkline.ts'

describeEachPostgres('trunkline projections', (server) => {
  const database = useDatabase(server)

  beforeAll(() => prepare(database()))

  // A dozen processes, one after the other.
  test(
    'lists, rebuilds with handlers of the configuration, and looks after parked events',
    { timeout: 120_000 },
    async () => {
      const directory = await mkdtemp(join(tmpdir(), 'trunkline-projections-'))
      onTestFinished(() => rm(directory, { recursive: true }))
      const config = join(directory, 'trunkline.config.mjs')
      await writeFile(
        config,
        `export default { projections: [{
         name: 'notes', mode: 'async', onFailure: 'park', attemptsMax: 1,
         tables: { notes: (table) => 'create table ' + table + ' (id text, by int)' },
         handlers: { counted: (event, { query, table }) => query('insert into ' + table('notes') + ' values ($1, $2)', [event.stream, event.payload.by]) },
       }] }`,
      )
      const run = (...args: string[]): Promise<Run> =>
        trunkline(['projections', ...args, '--url', database().url, '--config', config])
      expect((await run('list')).stdout).toBe('No projection.\n')
      const library = open(database())
      const { default: options } = (await import(config)) as { default: { projections: [never] } }
      const projection = library.projection(options.projections[0])
      await library.events.append('note-1', 'any', { type: 'counted', payload: { by: 'x' } })
      const { position } = await library.events.append('note-2', 'any', { type: 'counted', payload: { by: 2 } })
      await projection.start()
      await projection.reached(position)
      expect(objectsOf(await run('list', '--json'))).toMatchObject([
        { name: 'notes', state: 'running', parked: 1, position },
      ])
      expect((await run('list')).stdout).toMatch(/^PROJECTION.*\nnotes +async +1 +running/)
      const [parked] = objectsOf(await run('parked', 'notes', '--json'))
      expect(parked).toMatchObject({ stream: 'note-1', attempts: 1, errorCode: 'projection_failed' })
      expect(await run('retry', 'notes', '999')).toMatchObject({ code: 1 })
      expect(await run('retry', 'notes')).toMatchObject({ code: 2 })
      expect(await run('discard', 'notes', String(parked?.['id']))).toMatchObject({ code: 0 })
      await eventually(async () => (await projection.parked.list()).length === 0, { what: 'it was discarded' })
      const status = objectsOf(await trunkline(['status', '--json', '--url', database().url]))
      expect(status.find(({ kind }) => kind === 'projection')).toMatchObject({ name: 'notes', lagEvents: 0 })
      const rebuilt = await run('rebuild', 'notes', '--json')
      expect(rebuilt).toMatchObject({ code: 0 })
      expect(objectsOf(rebuilt)).toMatchObject([{ projection: 'notes', version: 1 }])
      // Its own builds park the event again.
      await eventually(async () => (await projection.status())?.parked === 1, { what: 'it is parked again' })
      expect(await database().query('select * from notes')).toEqual([{ id: 'note-2', by: 2 }])
      expect(await run('rebuild', 'nobody')).toMatchObject({ code: 2, stdout: '' })
      expect((await trunkline(['projections', '--help'])).stdout).toContain('trunkline projections rebuild order_list')
    },
  )
})
