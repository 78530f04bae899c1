-- The relay: who delivers which keys, how far each share of them is, and what did not go through at first.
--
-- Locks: creates new objects only; touches no table of the application.
-- By hand: psql -v schema=trunkline -f 0002_relay.sql

-- One row a relay, made by its first process. Its keys are split over slots by a hash (key_slot()); the number of
-- slots never changes.
create table :"schema".relay (
  name text primary key,
  slots smallint not null check (slots between 1 and 256),
  -- Ids of the topics it delivers; null: all.
  topics bigint[],
  -- Where to: for status. Never holds a secret.
  sink text not null,
  created_at timestamptz not null default now()
);

-- One row a running process of a relay. It renews its lease; who finds it expired by the server's clock removes the row,
-- and with it the right to every slot that it owned. The owner is a new uuid at each start, so that a process which comes
-- back after it was removed can do nothing under its old one.
create table :"schema".relay_member (
  relay text not null references :"schema".relay on delete cascade,
  owner uuid not null,
  -- Host and process id: for status.
  process text not null,
  expires_at timestamptz not null,
  started_at timestamptz not null default now(),
  primary key (relay, owner)
);

-- A share of a relay's keys: who has it, and how far its deliveries are confirmed or stored as failed.
create table :"schema".relay_slot (
  relay text not null references :"schema".relay on delete cascade,
  slot smallint not null,
  owner uuid,
  -- Grows with each change of owner.
  epoch bigint not null default 0,
  position text not null,
  snapshot txid_snapshot not null,
  -- Its last owner died: one of the deliveries behind `position` may be why.
  suspect boolean not null default false,
  updated_at timestamptz not null default now(),
  primary key (relay, slot)
) with (fillfactor = 50);

-- Attempts that were begun while a slot was suspect, and are not known to have ended. Empty while nothing dies.
create table :"schema".relay_mark (
  relay text not null references :"schema".relay on delete cascade,
  slot smallint not null,
  log_id bigint not null,
  xid bigint not null,
  attempts bigint not null default 1,
  -- Nothing else was in flight.
  alone boolean not null,
  started_at timestamptz not null default clock_timestamp(),
  primary key (relay, log_id, xid)
);

-- Deliveries that failed and what waits behind them, in the order of `id` for each topic and key: the log may forget them.
create table :"schema".failed_delivery (
  id bigint generated always as identity primary key,
  relay text not null references :"schema".relay on delete cascade,
  slot smallint not null,
  topic text not null,
  key text,
  message_id uuid not null,
  log_id bigint not null,
  xid bigint not null,
  -- The change as `tail --json` prints it.
  change json not null,
  -- Length of its text.
  bytes bigint not null default 0,
  -- retry: to be attempted from retry_at on, when it is the first of its key; dead: a dead letter; done: delivered, and kept
  -- until the slot's position covers it, so that reading again from there does not deliver it once more, behind later ones.
  state text not null check (state in ('retry', 'dead', 'done')),
  -- A dead letter that holds its key back until it is redriven or discarded.
  holds boolean not null default false,
  -- Begun so far; written before each.
  attempts bigint not null default 0,
  retry_at timestamptz not null,
  first_attempt_at timestamptz,
  last_attempt_at timestamptz,
  dead_at timestamptz,
  error_code text,
  error_message text,
  created_at timestamptz not null default now(),
  unique (relay, log_id, xid)
);

-- What holds keys back. By a hash: keys may be longer than an index row.
create index failed_delivery_live on :"schema".failed_delivery (relay, slot, topic, hashtextextended(key, 0), id) where state = 'retry' or holds;
-- What a position does not cover yet, and what is done.
create index failed_delivery_ahead on :"schema".failed_delivery (relay, slot, xid);
create index failed_delivery_done on :"schema".failed_delivery (relay, slot) where state = 'done';
create index failed_delivery_dead on :"schema".failed_delivery (relay, id) where state = 'dead';
