-- Projections: read models made of events, how far each is, who works on it, and the events that do not go through.
--
-- Locks: creates new objects only; touches no table of the application.
-- By hand: psql -v schema=trunkline -f 0006_projections.sql

create table :"schema".projection (
  name text primary key check (name <> ''),
  -- Number of the last build that was begun.
  builds bigint not null default 0,
  created_at timestamptz not null default now()
);

-- A set of tables made by one version of the handlers. At most one of a projection is live, and at most one is being built.
create table :"schema".projection_build (
  projection text not null references :"schema".projection on delete cascade,
  build bigint not null,
  -- Of the handlers, by the application.
  -- squawk-ignore prefer-bigint-over-int
  version integer not null check (version > 0),
  mode text not null check (mode in ('inline', 'async')),
  state text not null check (state in ('building', 'live')),
  -- squawk-ignore prefer-bigint-over-int
  partitions integer not null check (partitions between 1 and 64),
  -- Aggregate types it is made of; null: all.
  categories text[],
  -- Names that the tables have when they are live, and those that they have while they are built, as SQL writes them.
  tables text[] not null default '{}',
  built_as text[] not null default '{}',
  -- Events up to here were there before it served.
  replay_until bigint not null default 0,
  created_at timestamptz not null default now(),
  live_at timestamptz,
  primary key (projection, build),
  unique (projection, state)
);

-- One row a running process that works on a build. It renews its lease; who finds it expired by the server's clock removes
-- the row, and with it the right to every partition that it owned.
create table :"schema".projection_member (
  projection text not null,
  build bigint not null,
  owner uuid not null,
  -- Host and process id: for status.
  process text not null,
  expires_at timestamptz not null,
  started_at timestamptz not null default now(),
  primary key (projection, build, owner),
  foreign key (projection, build) references :"schema".projection_build on delete cascade
);

-- A share of the streams of a build: who has it, and up to where it is handled.
create table :"schema".projection_partition (
  projection text not null,
  build bigint not null,
  -- squawk-ignore prefer-bigint-over-int
  partition integer not null,
  position bigint not null default 0,
  -- The last event at or before the position, when it was stored: if it is another one, this is another history.
  anchor_position bigint,
  anchor_id uuid,
  owner uuid,
  -- Grows with each change of owner.
  epoch bigint not null default 0,
  -- The event that does not go through, while one does not.
  failing_position bigint,
  failing_stream text,
  attempts bigint not null default 0,
  error_code text,
  error text,
  failing_since timestamptz,
  updated_at timestamptz not null default now(),
  primary key (projection, build, partition),
  foreign key (projection, build) references :"schema".projection_build on delete cascade
) with (fillfactor = 50);

-- Events that failed, and those of their streams that came after them. Only the owner of the partition adds and removes them;
-- others write what they want done into `request`.
create table :"schema".parked_event (
  id bigint generated always as identity primary key,
  projection text not null,
  build bigint not null,
  -- squawk-ignore prefer-bigint-over-int
  partition integer not null,
  aggregate_type text not null,
  aggregate_id text not null,
  position bigint not null,
  event_id uuid not null,
  version bigint not null,
  type text not null,
  -- 0: it waits behind another.
  attempts bigint not null default 0,
  error_code text,
  error text,
  first_attempt_at timestamptz,
  last_attempt_at timestamptz,
  parked_at timestamptz not null default clock_timestamp(),
  request text check (request in ('retry', 'discard')),
  unique (projection, build, position),
  foreign key (projection, build) references :"schema".projection_build on delete cascade
);

create index parked_event_stream on :"schema".parked_event (projection, build, partition, aggregate_type, aggregate_id, position);
create index parked_event_request on :"schema".parked_event (projection, build, partition) where request is not null;
