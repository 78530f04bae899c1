import { describe, expect, test } from 'vitest'
import { createTrunkline } from '../../src/index.ts'
import { lacksDocker, startContainer } from '../support/containers.ts'
import { createDatabase, describeEachVersion } from '../support/index.ts'

describe.skipIf(await lacksDocker())('in a container', () => {
  describeEachVersion('PostgreSQL', (version) => {
    test('answers on a database of its own', { timeout: 120_000 }, async () => {
      await using container = await startContainer(version, { max_prepared_transactions: '10' })
      await using database = await createDatabase(container.server)
      const [row] = await database.query<{ version: string; prepared: string }>(
        "select version(), current_setting('max_prepared_transactions') as prepared",
      )
      expect(row?.version).toMatch(new RegExp(`^PostgreSQL ${version}[.]`))
      expect(row?.prepared).toBe('10')
    })

    test('the way a user goes: migrate, capture, start, cache', { timeout: 120_000 }, async () => {
      await using container = await startContainer(version)
      await using database = await createDatabase(container.server)
      await database.query(
        'create table common_code (group_cd text, code text, name text, primary key (group_cd, code))',
      )
      await database.query("insert into common_code values ('A', '01', 'one'), ('B', '01', 'uno')")
      await using trunkline = createTrunkline({ url: database.url })
      await trunkline.migrate()
      await trunkline.capture('public.common_code')
      await trunkline.start()
      expect(trunkline.mode).toBe('listen')
      const codes = await trunkline.cache<{ name: string }>('public.common_code', { indexes: { group: ['group_cd'] } })
      expect(codes.size).toBe(2)

      const changed = new Promise((resolve) => codes.once('change', resolve))
      const writer = await database.connect()
      await writer.query('begin')
      await writer.query("update common_code set name = 'eins' where group_cd = 'A'")
      await codes.fresh()
      expect(codes.get({ group_cd: 'A', code: '01' })?.name).toBe('one')
      await writer.query('commit')
      expect(await changed).toMatchObject({ operation: 'update', old: { name: 'one' }, new: { name: 'eins' } })
      expect(codes.by('group', 'A')).toEqual([{ group_cd: 'A', code: '01', name: 'eins' }])

      const reader = await trunkline.reader({ from: 'beginning' })
      const { changes } = await reader.nextWhole()
      expect(changes).toMatchObject([{ operation: 'update', table: 'public.common_code', new: { name: 'eins' } }])
    })
  })
})
