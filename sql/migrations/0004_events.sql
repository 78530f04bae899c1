-- The event store: one row an event, written once by append() and never changed.
--
-- Locks: creates new objects; adds a column with a constant default to the one-row table installation (no rewrite).
-- By hand: psql -v schema=trunkline -f 0004_events.sql

create table :"schema".event (
  -- The global order (docs/events.md, "The order of all events"). Its sequence has CACHE 1, always: with more, a later
  -- version of a stream could carry a lower position.
  -- squawk-ignore prefer-identity
  position bigserial not null,
  id uuid not null,
  -- A stream is an aggregate's type and its id, written 'type-id': the first '-' divides.
  aggregate_type text not null check (aggregate_type <> '' and aggregate_type not like '%-%'),
  aggregate_id text not null,
  -- From 1, without holes.
  version bigint not null check (version > 0),
  type text not null check (type <> ''),
  -- Which form of its type the payload has; upcasters go by it. There will not be two billion forms.
  -- squawk-ignore prefer-bigint-over-int
  schema_version integer not null default 1 check (schema_version > 0),
  -- json, not jsonb: the text is kept as it was written, and handed out without being made anew.
  payload json not null,
  metadata jsonb not null default '{}',
  -- Whole milliseconds, so that a Date of JavaScript holds it; never before the stream's previous event.
  created_at timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
  constraint event_stream primary key (aggregate_type, aggregate_id, version)
);

create unique index event_position on :"schema".event (position);
create unique index event_id on :"schema".event (id);

-- Statement triggers: they cost an INSERT nothing. ALWAYS: also where session_replication_role is replica.
create function :"schema".refuse_event_change() returns trigger language plpgsql as 'begin return null; end';
create trigger event_immutable before update or delete or truncate on :"schema".event
  for each statement execute function :"schema".refuse_event_change();
alter table :"schema".event enable always trigger event_immutable;

-- Aggregate types whose events are written to the log too, for relays: what publish_events() was last called with, in order.
alter table :"schema".installation add column published text[] not null default '{}';
