-- The change log: the tables on which every part of trunkline stands.
--
-- Locks: creates new objects only; touches no table of the application.
-- By hand: psql -v schema=trunkline -f 0001_change_log.sql

-- One row, made at install. Together with the server's system identifier, its timeline and the
-- database's oid it tells whether a stored position still speaks of this log.
create table :"schema".installation (
  id uuid not null,
  -- First key of the advisory locks on which readers sleep; the topic is the second. The same in every
  -- installation, so that triggers can name it: two that capture one table wake each other's readers.
  lock_class bigint not null default 1953658222 check (lock_class = 1953658222),
  -- The one NOTIFY channel of this installation.
  channel text not null,
  -- How long a row of the log is kept at least.
  retention interval not null default '1 day',
  -- How long a durable reader that no longer moves may hold rows beyond the retention.
  hold interval not null default '7 days',
  -- The highest xid whose rows were removed from the log by rotation.
  truncated_xid bigint not null default 0,
  -- Taken while the removed rows' table was locked: whoever was open then has lost none.
  truncated_snapshot txid_snapshot not null default '1:1:',
  created_at timestamptz not null default now()
);

create unique index installation_one_row on :"schema".installation ((true));

insert into :"schema".installation (id, channel)
values (
  md5(random()::text || clock_timestamp()::text || pg_backend_pid()::text || txid_current()::text)::uuid,
  ''
);

-- The channel's name contains the schema's; an identifier has at most 63 bytes.
update :"schema".installation as i
set channel = case
    when octet_length('trunkline_' || n.nspname) <= 63 then 'trunkline_' || n.nspname
    else 'trunkline_' || md5(n.nspname)
  end
from pg_catalog.pg_class as c, pg_catalog.pg_namespace as n
where c.oid = i.tableoid and n.oid = c.relnamespace;

-- Where a row of the log belongs: one row a captured table, and one or more rows (equal but for
-- created_at) an emitted topic. There is no unique constraint on emitted topics: it would make
-- a writer wait for another that used the same new topic first. Their id is a hash of the name.
create table :"schema".topic (
  -- The table's oid, or a hash of the event topic's name.
  id bigint not null,
  -- Of a captured table: schema.table when it was captured; readers show its present name.
  name text not null,
  relation oid,
  captured boolean not null default false,
  rows text not null default 'full' check (rows in ('full', 'keys')),
  "exclude" text[] not null default '{}',
  filter text,
  wake text check (wake in ('elided', 'always', 'off')),
  -- Columns of the primary key when the table was captured; empty: the whole row is the key.
  key_columns text[] not null default '{}',
  created_at timestamptz not null default now()
);

create index topic_id on :"schema".topic (id);
create unique index topic_relation on :"schema".topic (relation) where relation is not null;

-- The log. Writers insert into one of three children (log_slot() says which), readers read all:
-- rotation empties a child that nobody writes to with TRUNCATE, so that the log stays bounded
-- without a mass DELETE, without DDL on a table in use, and without ever locking a writer out.
create table :"schema".log (
  -- Drawn under the row's lock (AFTER trigger). Its sequence has CACHE 1, always: with more, a
  -- later commit of the same key could carry a lower id.
  -- Children inherit a default, not an identity.
  -- squawk-ignore prefer-identity
  id bigserial not null,
  xid bigint not null default txid_current(),
  topic bigint not null,
  -- i(nsert), u(pdate), d(elete), t(runcate), e(mit), x: rows changed in a way that no trigger
  -- saw in full, readers take a fresh copy.
  -- The type "char" is one byte.
  -- squawk-ignore ban-char-field
  operation "char" not null,
  -- json, not jsonb: a json column may hold what jsonb refuses (\u0000), -0 stays -0, and it is
  -- the cheaper one to write.
  old json,
  new json,
  key text,
  type text,
  payload json,
  headers json,
  created_at timestamptz not null default clock_timestamp()
);

create table :"schema".log_0 () inherits (:"schema".log);
create table :"schema".log_1 () inherits (:"schema".log);
create table :"schema".log_2 () inherits (:"schema".log);

-- The only index on the hot path. Topic first, so that the reader of a quiet table pays nothing
-- for a busy one; then xid, the range a snapshot pair asks for; then id, so that one bulk
-- transaction is read in pages without a sort.
create index log_0_topic_xid_id on :"schema".log_0 (topic, xid, id);
create index log_1_topic_xid_id on :"schema".log_1 (topic, xid, id);
create index log_2_topic_xid_id on :"schema".log_2 (topic, xid, id);

-- The child that takes new rows: 0, 1 or 2. A function and not a table, because the planner
-- inlines it into the writer's plan (and replans when it is replaced), so that asking costs a
-- writer nothing. Replaced by rotate().
create function :"schema".log_slot() returns integer
language sql stable as 'select 0';

-- Who is told of a commit when nothing else is said for a table; replaced by set_wake().
create function :"schema".wake_mode() returns text
language sql stable as $$select 'elided'::text$$;

-- Functions are everybody's by default. Writers need none of them: triggers call them as their owner.
revoke execute on function :"schema".log_slot(), :"schema".wake_mode() from public;
-- For emit(), the one function that is everybody's.
grant usage on schema :"schema" to public;

create table :"schema".slot (
  slot smallint primary key check (slot between 0 and 2),
  opened_at timestamptz,
  closed_at timestamptz
);

insert into :"schema".slot (slot, opened_at) values (0, now()), (1, null), (2, null);

-- Snapshots that writers leave behind, about one every 4,096 rows: a reader that is far behind
-- goes from one to the next, so that the cost of a page does not depend on the backlog.
create table :"schema".tick (
  log_id bigint not null,
  xid bigint not null default txid_current(),
  snapshot txid_snapshot not null default txid_current_snapshot(),
  created_at timestamptz not null default clock_timestamp()
);

create index tick_xmax on :"schema".tick (txid_snapshot_xmax(snapshot));
create index tick_xid on :"schema".tick (xid);

-- Checkpoints of durable readers.
create table :"schema".reader (
  name text primary key,
  position text not null,
  snapshot txid_snapshot not null,
  updated_at timestamptz not null default now(),
  created_at timestamptz not null default now()
);
