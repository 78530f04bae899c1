/**
 * Reference data in memory, always equal to the table. Run it against any PostgreSQL from 12 on:
 *
 *     DATABASE_URL=postgres://owner:secret@localhost:5432/shop node examples/reference-data.ts
 *
 * and change a row from anywhere else, for example with psql. In an application the import is from 'trunkline'.
 */
import { createTrunkline } from '../src/index.ts'

interface Code {
  readonly group_cd: string
  readonly code: string
  readonly name: string
}

const trunkline = createTrunkline({ url: process.env['DATABASE_URL'] })
await trunkline.migrate()
await trunkline.pool.query(
  'create table if not exists common_code (group_cd text, code text, name text not null, primary key (group_cd, code))',
)
await trunkline.capture('common_code')
await trunkline.start()

const codes = await trunkline.cache<Code>('common_code', { indexes: { group: ['group_cd'] } })
codes.on('change', (change) => console.log(change.operation, change.old?.name, '->', change.new?.name))
console.log(`${codes.size} codes in memory; ${codes.by('group', 'COUNTRY').length} of them are countries`)
console.log('Korea is called', codes.get({ group_cd: 'COUNTRY', code: 'KR' })?.name)

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void trunkline.stop())
