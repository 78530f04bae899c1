import { type IndexDefinitions } from '../../index.ts'

/** A table of the demo, as the main process makes it and every instance caches it. */
export interface DemoTable {
  readonly name: string
  /** Columns of the primary key. */
  readonly key: readonly string[]
  readonly indexes: IndexDefinitions
  /** What is captured: a cache needs keys only; the codes are captured in full, as a relay would want them. */
  readonly captured: 'full' | 'keys'
  readonly create: string
}

/**
 * The largest first: its copy is the one worth timing. `revision` is the number of the transaction that wrote the row
 * last (0: the first load), by which the demo recognises in an instance what it wrote.
 */
export const demoTables: readonly DemoTable[] = [
  {
    name: 'place',
    key: ['id'],
    indexes: { country: ['country_cd'] },
    captured: 'keys',
    create: `
      create table place (
        id integer primary key,
        name text not null,
        country_cd text not null,
        region_cd text not null,
        latitude numeric(8, 5) not null,
        longitude numeric(8, 5) not null,
        revision integer not null default 0
      )`,
  },
  {
    name: 'common_code_group',
    key: ['group_cd'],
    indexes: {},
    captured: 'full',
    create: `
      create table common_code_group (
        group_cd text primary key,
        name text not null,
        sort_order integer not null,
        revision integer not null default 0
      )`,
  },
  {
    name: 'common_code',
    key: ['group_cd', 'code'],
    indexes: { group: ['group_cd'] },
    captured: 'full',
    create: `
      create table common_code (
        group_cd text not null,
        code text not null,
        name text not null,
        attributes jsonb not null default '{}',
        is_active boolean not null default true,
        revision integer not null default 0,
        updated_at timestamptz not null default now(),
        primary key (group_cd, code)
      )`,
  },
]
