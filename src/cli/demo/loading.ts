import { type Pool } from 'pg'
import { type Trunkline } from '../../index.ts'
import { type Place, type ReferenceData } from './reference-data.ts'
import { demoTables } from './tables.ts'

/** Rows sent with one statement. */
const loadRows = 10_000

/** Makes the tables, fills them, and has their changes captured from then on. Returns the rows of each. */
export async function loadTables(trunkline: Trunkline, data: ReferenceData): Promise<Record<string, number>> {
  const { pool } = trunkline
  await trunkline.migrate()
  for (const { create } of demoTables) await pool.query(create)
  await loadCodes(pool, data)
  for (let from = 0; from < data.places.length; from += loadRows) {
    await loadPlaces(pool, from, data.places.slice(from, from + loadRows))
  }
  const names = demoTables.map(({ name }) => name)
  await pool.query(`analyze ${names.join(', ')}`)
  for (const { name, captured } of demoTables) await trunkline.capture(name, { rows: captured })
  const counts = names.map((name) => `(select count(*)::integer from ${name}) as ${name}`)
  const { rows } = await pool.query<Record<string, number>>(`select ${counts.join(', ')}`)
  return rows[0] ?? {}
}

async function loadCodes(pool: Pool, { groups, codes }: ReferenceData): Promise<void> {
  await pool.query(
    `insert into common_code_group (group_cd, name, sort_order)
     select * from unnest($1::text[], $2::text[], $3::integer[])`,
    [groups.map(({ group }) => group), groups.map(({ name }) => name), groups.map((_, place) => place + 1)],
  )
  await pool.query(
    `insert into common_code (group_cd, code, name, attributes)
     select * from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])`,
    [
      codes.map(({ group }) => group),
      codes.map(({ code }) => code),
      codes.map(({ name }) => name),
      codes.map(({ attributes }) => JSON.stringify(attributes)),
    ],
  )
}

/** A place's key is its number in the package. */
async function loadPlaces(pool: Pool, from: number, places: readonly Place[]): Promise<void> {
  await pool.query(
    `insert into place (id, name, country_cd, region_cd, latitude, longitude)
     select * from unnest($1::integer[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::numeric[])`,
    [
      places.map((_, place) => from + place + 1),
      places.map(({ name }) => name),
      places.map(({ country }) => country),
      places.map(({ admin1 }) => admin1),
      places.map(({ lat }) => lat),
      places.map(({ lng }) => lng),
    ],
  )
}
