-- Aggregates of the event store: their snapshots, and the keys of those whose personal data events hold.
--
-- Locks: creates new objects only; touches no table of the application.
-- By hand: psql -v schema=trunkline -f 0005_aggregates.sql

-- A cache: any row may be deleted at any time.
create table :"schema".aggregate_snapshot (
  aggregate_type text not null,
  aggregate_id text not null,
  -- Of the state's shape, by the application. What has another one is not read.
  -- squawk-ignore prefer-bigint-over-int
  schema_version integer not null check (schema_version > 0),
  version bigint not null check (version > 0),
  -- The event at that version. A stream that has another one there has another history, and the snapshot does not count.
  event_id uuid not null,
  -- With subjects: a text, sealed under a key that needs those of all of them.
  state json not null,
  -- Whose personal data the state holds.
  subjects text[] not null default '{}',
  written_at timestamptz not null default clock_timestamp(),
  primary key (aggregate_type, aggregate_id, schema_version)
);

-- For forgetting.
create index aggregate_snapshot_subjects on :"schema".aggregate_snapshot using gin (subjects) where subjects <> '{}';

-- The only thing that makes sealed personal data readable. Apart from the events, so that a dump can leave it out.
create table :"schema".subject_key (
  subject text primary key,
  -- Null once the subject is forgotten; the row stays, so that nothing can be written of it any more.
  key_id uuid,
  -- In base64: 32 random bytes, or, where the application has a master key, what AES-256-GCM made of them.
  secret text,
  -- Which master key; null: none.
  master_key text,
  created_at timestamptz not null default now(),
  forgotten_at timestamptz,
  constraint subject_key_or_forgotten check ((secret is null) = (key_id is null) and (secret is null) = (forgotten_at is not null))
);
