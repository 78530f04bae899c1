/**
 * Writes sql/schema.sql, the schema that the migrations and routines make, as its catalogs tell it; with `--check` it
 * compares instead and fails when the file differs. Made on an embedded PostgreSQL: there is no pg_dump among its programs.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { migrate } from '../src/schema/index.ts'
import { startEmbeddedPostgres } from '../src/testing/index.ts'

const schema = 'trunkline'
const file = join(dirname(import.meta.dirname), 'sql', 'schema.sql')

/** One part of the dump: SQL that gives one text a row. `$1` is the schema's oid. */
interface Part {
  readonly title: string
  readonly query: string
}

/** The owner's name is nobody's business, and rights of the owner go without saying. */
const grants = (objects: string, acl: string): string => `
  cross join lateral aclexplode(${acl}) as a
  where a.grantee <> a.grantor and ${objects}`

const parts: readonly Part[] = [
  {
    title: 'sequences',
    query: `select format('create sequence trunkline.%s as %s start %s increment %s minvalue %s maxvalue %s cache %s%s;',
        c.relname, format_type(s.seqtypid, null), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then ' cycle' else ' no cycle' end)
      from pg_class as c join pg_sequence as s on s.seqrelid = c.oid where c.relnamespace = $1 order by c.relname collate "C"`,
  },
  {
    title: 'tables',
    query: `select format(E'create table trunkline.%s (\\n%s\\n)%s;', c.relname,
        (select string_agg(format('  %I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
            coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''), case when a.attnotnull then ' not null' else '' end), E',\\n' order by a.attnum)
          from pg_attribute as a left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
        coalesce((select ' inherits (' || string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno) || ')' from pg_inherits as i where i.inhrelid = c.oid), ''))
      from pg_class as c where c.relnamespace = $1 and c.relkind in ('r', 'p') order by c.relname collate "C"`,
  },
  {
    title: 'constraints',
    query: `select format('alter table trunkline.%s add constraint %s %s;', c.relname, k.conname, pg_get_constraintdef(k.oid))
      from pg_constraint as k join pg_class as c on c.oid = k.conrelid
      -- Of type n since PostgreSQL 18: NOT NULL, which stands with its column.
      where k.connamespace = $1 and k.contype <> 'n' order by c.relname collate "C", k.conname collate "C"`,
  },
  {
    title: 'indexes',
    query: `select pg_get_indexdef(i.indexrelid) || ';' from pg_index as i join pg_class as c on c.oid = i.indexrelid
      where c.relnamespace = $1 and not exists (select from pg_constraint as k where k.conindid = i.indexrelid)
      order by c.relname collate "C"`,
  },
  {
    title: 'functions',
    query: `select rtrim(pg_get_functiondef(p.oid), E'\\n') || ';' from pg_proc as p where p.pronamespace = $1
      order by p.proname collate "C", p.oid::regprocedure::text collate "C"`,
  },
  {
    title: 'views',
    query: `select format(E'create view trunkline.%s as\\n%s', c.relname, pg_get_viewdef(c.oid, true))
      from pg_class as c where c.relnamespace = $1 and c.relkind = 'v' order by c.relname collate "C"`,
  },
  {
    title: 'rights: what is not named here is the owner’s alone',
    query: `select format('grant %s on schema trunkline to %s;', lower(a.privilege_type), coalesce(r.rolname::text, 'public'))
      from pg_namespace as n ${grants('n.oid = $1', 'n.nspacl').replace('where', 'left join pg_roles as r on r.oid = a.grantee where')}
      union all
      select format('grant %s on function %s to %s;', lower(a.privilege_type), p.oid::regprocedure, coalesce(r.rolname::text, 'public'))
      from pg_proc as p ${grants('p.pronamespace = $1', "coalesce(p.proacl, acldefault('f', p.proowner))").replace('where', 'left join pg_roles as r on r.oid = a.grantee where')}
      union all
      select format('grant %s on trunkline.%s to %s;', lower(a.privilege_type), c.relname, coalesce(r.rolname::text, 'public'))
      from pg_class as c ${grants('c.relnamespace = $1', 'c.relacl').replace('where', 'left join pg_roles as r on r.oid = a.grantee where')}
      order by 1`,
  },
]

async function dump(url: string): Promise<string> {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  try {
    await migrate({ pool, schema })
    // Names come with their schema where this path does not have it.
    await pool.query('set search_path = pg_catalog')
    const { rows } = await pool.query<{ oid: number }>('select oid from pg_namespace where nspname = $1', [schema])
    const texts = [
      '-- Made by scripts/schema-dump.ts from the migrations and routines: do not edit.\n\ncreate schema trunkline;\n',
    ]
    for (const { title, query } of parts) {
      const result = await pool.query<[string]>({ text: query, values: [rows[0]?.oid], rowMode: 'array' })
      texts.push(`-- ${title}\n`, ...result.rows.map(([text]) => `${text}\n`))
    }
    return texts.join('\n')
  } finally {
    await pool.end()
  }
}

await using server = await startEmbeddedPostgres({ version: '18', settings: { fsync: 'off' } })
const text = await dump(server.url)
if (process.argv.includes('--check')) {
  if (readFileSync(file, 'utf8') === text) console.log('sql/schema.sql is what the migrations and routines make')
  else {
    console.error('sql/schema.sql differs from what the migrations and routines make: run node scripts/schema-dump.ts')
    process.exitCode = 1
  }
} else {
  writeFileSync(file, text)
  console.log('wrote sql/schema.sql')
}
