import { expect, test } from 'vitest'
import {
  createDatabase,
  createStandby,
  describeEachPostgres,
  describeEachVersion,
  lacksPgBouncer,
  ownCluster,
  startPgBouncer,
  type TestDatabase,
} from '../support/index.ts'
import { objectsOf, trunkline } from './trunkline.ts'

interface Visit {
  readonly code: number | null
  /** Codes by severity: `error triggers_missing`. */
  readonly codes: string[]
  readonly findings: Record<string, unknown>[]
}

async function doctor(url: string, env: Record<string, string> = {}): Promise<Visit> {
  const run = await trunkline(['doctor', '--json'], { env: { DATABASE_URL: url, ...env } })
  expect(run.stderr).toBe('')
  const findings = objectsOf(run)
  for (const finding of findings) expect(Object.keys(finding)).toEqual(['severity', 'code', 'what', 'mend'])
  return {
    code: run.code,
    findings,
    codes: findings.map(({ severity, code }) => `${String(severity)} ${String(code)}`).toSorted(),
  }
}

async function installed(database: TestDatabase): Promise<void> {
  expect((await trunkline(['migrate'], { env: { DATABASE_URL: database.url } })).code).toBe(0)
}

/** What every healthy database of the tests has: prepared transactions are on, and 12 has its hazard. */
const usual = new Set(['info two_phase', 'info attach_hazard'])

describeEachPostgres('doctor', (server) => {
  test('a database without the schema, then a healthy one', async () => {
    await using database = await createDatabase(server)
    expect(await doctor(database.url)).toMatchObject({ code: 1, codes: ['error schema_missing'] })
    await installed(database)
    await database.query("create table fine (id integer primary key); select trunkline.capture('fine')")
    const visit = await doctor(database.url)
    expect(visit.code).toBe(0)
    expect(visit.codes.filter((code) => !usual.has(code))).toEqual([])
    const text = await trunkline(['doctor'], { env: { DATABASE_URL: database.url } })
    expect(text.stdout).toContain('[two_phase]')
    await database.query("insert into trunkline.migration (number, name, checksum) values (999, '0999_future', '')")
    expect(await doctor(database.url)).toMatchObject({ code: 1, codes: ['error schema_newer'] })
    await database.query(
      "delete from trunkline.migration where number = 999; update trunkline.routine set checksum = 'other' where name = 'emit'",
    )
    expect(await doctor(database.url)).toMatchObject({ code: 1, codes: ['error schema_older'] })
  })

  test('what happened to captured tables', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query(`
      create table lacking (id integer primary key); create table disabled (id integer primary key);
      create table gone (id integer primary key); create table rekeyed (id integer primary key, other integer);
      create table filtered (id integer primary key, amount integer); create table excluding (id integer primary key, secret text);
      create table volatile (id integer primary key); create table parent (id integer primary key);
      create table parted (id integer) partition by list (id); create table parted_1 partition of parted for values in (1);
      create table touchy (id integer primary key, n integer);
      create function touch() returns trigger language plpgsql as 'begin update touchy set n = 1; return null; end';
      create trigger touch after insert on touchy for each row execute function touch();
      select trunkline.capture(t) from unnest('{lacking,disabled,gone,rekeyed,volatile,parent,parted,touchy}'::text[]) as t;
      select trunkline.capture('filtered', filter => 'amount > 0'), trunkline.capture('excluding', exclude => '{secret}');
      drop table gone;
      alter table rekeyed drop constraint rekeyed_pkey; alter table rekeyed add primary key (other, id);
      alter table filtered drop column amount; alter table excluding drop column secret;
      alter table disabled disable trigger user;
      alter table volatile set unlogged;
      alter table parted_1 disable trigger user;
      alter table lacking enable row level security;
      create table child () inherits (parent)`)
    // Only a superuser may make a role write without triggers.
    await database.adminQuery(`alter role app_user in database ${database.name} set session_replication_role = replica`)
    const visit = await doctor(database.url)
    await database.adminQuery(`alter role app_user in database ${database.name} reset all`)
    expect(visit.code).toBe(1)
    expect(new Set(visit.codes)).toEqual(
      new Set([
        'error capture_broken',
        'error key_changed',
        'error replication_role',
        'error table_unlogged',
        'error triggers_disabled',
        'error triggers_missing',
        'error triggers_surplus',
        'info table_dropped',
        'warning after_trigger_writes',
        'warning row_security',
        ...[...usual].filter((code) => server.version === '12' || code !== 'info attach_hazard'),
      ]),
    )
  })

  test('a table that was made anew, with triggers of its predecessor: the mend it names mends', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query(`
      create table restored (id integer primary key, secret text); create table stray (id integer primary key);
      select trunkline.capture('restored', exclude => '{secret}'), trunkline.capture('stray');
      create temporary table kept as select pg_get_triggerdef(oid) as definition from pg_trigger where not tgisinternal and tgrelid in ('restored'::regclass, 'stray'::regclass);
      drop table restored, stray; create table restored (id integer primary key, secret text); create table stray (id integer primary key);
      do $$ declare one record; begin for one in select * from kept loop execute one.definition; end loop; end $$;
      drop table kept; delete from trunkline.topic where name = 'public.stray'`)
    const visit = await doctor(database.url)
    expect(visit.code).toBe(1)
    expect(visit.codes.filter((code) => code.startsWith('error'))).toEqual([
      'error capture_lost',
      'error triggers_surplus',
      'error triggers_surplus',
    ])
    const mends = new Set(visit.findings.filter(({ severity }) => severity === 'error').map(({ mend }) => String(mend)))
    expect([...mends]).toEqual([
      'Run: trunkline capture public.restored --exclude secret',
      'Run: trunkline release public.stray',
    ])
    for (const mend of mends) {
      const args = mend.replace('Run: trunkline ', '').split(' ')
      expect((await trunkline(args, { env: { DATABASE_URL: database.url } })).code).toBe(0)
    }
    expect((await doctor(database.url)).code).toBe(0)
  })

  test('a partitioned table that changed hands: partitions, and one that is unlogged', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query(
      "create table handed (id integer primary key) partition by range (id); select trunkline.capture('handed')",
    )
    await database.query('create unlogged table handed_1 partition of handed for values from (0) to (10)')
    await database.adminQuery('alter table handed owner to app_user; grant create on schema public to app_user')
    const partition = 'create table handed_2 partition of handed for values from (10) to (20)'
    const user = await database.connect('user')
    await expect(user.query(partition)).rejects.toThrow('permission denied for function')
    const visit = await doctor(database.adminUrl)
    expect(visit.codes.filter((code) => code.startsWith('error'))).toEqual([
      'error partition_denied',
      'error table_unlogged',
      'error triggers_missing',
    ])
    expect((await trunkline(['capture', 'handed'], { env: { DATABASE_URL: database.adminUrl } })).code).toBe(0)
    await user.query(partition)
  })

  test('what makes the writes of the application fail: owners, rights, what is gone', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query("create table shown (id integer primary key); select trunkline.capture('shown')")
    const codes = async (): Promise<string[]> =>
      (await doctor(database.url)).codes.filter((code) => code.startsWith('error'))
    await database.adminQuery('alter table trunkline.log_0 owner to postgres')
    await expect(database.query('insert into shown values (1)')).rejects.toThrow('permission denied')
    expect(await codes()).toEqual(['error log_denied', 'error owner_mixed'])
    await database.adminQuery('alter table trunkline.log_0 owner to app_owner')
    await database.query('revoke insert on trunkline.log_0 from app_owner')
    expect(await codes()).toEqual(['error log_denied'])
    await database.query('grant all on trunkline.log_0 to app_owner')
    await database.query('drop function trunkline.set_wake')
    expect(await codes()).toEqual(['error schema_damaged'])
    await database.query("delete from trunkline.routine where name in ('set_wake')")
    await installed(database)
    expect(await codes()).toEqual([])
    await database.query('drop table trunkline.log_2')
    expect(await codes()).toEqual(['error schema_damaged'])
  })

  test('the log: sequence, rotation, readers', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query(`
      alter sequence trunkline.log_id_seq cache 20;
      update trunkline.slot set opened_at = now() - interval '2 days' where slot = 0;
      update trunkline.slot set opened_at = now() - interval '9 days', closed_at = now() - interval '3 days' where slot = 2;
      insert into trunkline.reader (name, position, snapshot, updated_at) values ('dead', 'p', '1:1:', now() - interval '8 days');
      insert into trunkline.reader (name, position, snapshot) values ('slow', 'p', '1:1:');
      select trunkline.emit('topic', null, null, '1');
      update trunkline.log_0 set created_at = now() - interval '2 hours'`)
    const { code, codes, findings } = await doctor(database.url)
    expect(code).toBe(1)
    expect(codes).toEqual([
      'error sequence_cache',
      'warning reader_behind',
      'warning reader_dead',
      'warning rotation_overdue',
    ])
    expect(findings.find((finding) => finding['code'] === 'sequence_cache')?.['mend']).toContain('cache 1')
  })

  test('what the role may do', async () => {
    await using database = await createDatabase(server)
    await installed(database)
    await database.query("create table shown (id integer primary key); select trunkline.capture('shown')")
    expect(await doctor(database.userUrl)).toMatchObject({ code: 1, codes: ['error no_privilege'] })
    await database.query("select trunkline.grant_reader('app_user')")
    const visit = await doctor(database.userUrl)
    expect(visit.code).toBe(0)
    expect(visit.codes).toContain('info not_owner')
    expect((await trunkline(['status'], { env: { DATABASE_URL: database.userUrl } })).code).toBe(0)
  })

  test.skipIf(lacksPgBouncer())(
    'LISTEN through a pooler in transaction mode, and past it',
    { timeout: 60_000 },
    async () => {
      await using database = await createDatabase(server)
      await installed(database)
      await using pooler = await startPgBouncer(database)
      const pooled = await doctor(pooler.url)
      expect(pooled.codes.filter((code) => !usual.has(code))).toEqual(['warning listen_unavailable'])
      const past = await doctor(pooler.url, { TRUNKLINE_LISTEN_URL: database.url })
      expect(past.codes.filter((code) => !usual.has(code))).toEqual([])
      const wrong = await doctor(database.url, { TRUNKLINE_LISTEN_URL: 'postgres://me:hidden@127.0.0.1:1/d' })
      expect(wrong.codes.filter((code) => !usual.has(code))).toEqual(['warning listen_unavailable'])
      expect(JSON.stringify(wrong.findings)).not.toContain('hidden')
    },
  )
})

describeEachVersion('doctor', (version) => {
  test('on a standby', { timeout: 90_000 }, async () => {
    await using primary = await ownCluster(version)
    await using standby = await createStandby(primary)
    const visit = await doctor(standby.postgres.url)
    expect(visit.code).toBe(1)
    expect(visit.codes).toEqual(['error standby', 'warning listen_unavailable'])
  })
})
