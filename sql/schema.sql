-- Made by scripts/schema-dump.ts from the migrations and routines: do not edit.

create schema trunkline;

-- sequences

create sequence trunkline.event_position_seq as bigint start 1 increment 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle;

create sequence trunkline.failed_delivery_id_seq as bigint start 1 increment 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle;

create sequence trunkline.log_id_seq as bigint start 1 increment 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle;

create sequence trunkline.parked_event_id_seq as bigint start 1 increment 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle;

create sequence trunkline.relay_checkpoint_id_seq as bigint start 1 increment 1 minvalue 1 maxvalue 9223372036854775807 cache 1 no cycle;

-- tables

create table trunkline.aggregate_snapshot (
  aggregate_type text not null,
  aggregate_id text not null,
  schema_version integer not null,
  version bigint not null,
  event_id uuid not null,
  state json not null,
  subjects text[] default '{}'::text[] not null,
  written_at timestamp with time zone default clock_timestamp() not null
);

create table trunkline.event (
  "position" bigint default nextval('trunkline.event_position_seq'::regclass) not null,
  id uuid not null,
  aggregate_type text not null,
  aggregate_id text not null,
  version bigint not null,
  type text not null,
  schema_version integer default 1 not null,
  payload json not null,
  metadata jsonb default '{}'::jsonb not null,
  created_at timestamp with time zone default date_trunc('milliseconds'::text, clock_timestamp()) not null
);

create table trunkline.failed_delivery (
  id bigint not null,
  relay text not null,
  slot smallint not null,
  topic text not null,
  key text,
  message_id uuid not null,
  log_id bigint not null,
  xid bigint not null,
  change json not null,
  bytes bigint default 0 not null,
  state text not null,
  holds boolean default false not null,
  attempts bigint default 0 not null,
  retry_at timestamp with time zone not null,
  first_attempt_at timestamp with time zone,
  last_attempt_at timestamp with time zone,
  dead_at timestamp with time zone,
  error_code text,
  error_message text,
  created_at timestamp with time zone default now() not null
);

create table trunkline.inbox (
  consumer text not null,
  message_id text not null,
  handled_at timestamp with time zone default now() not null
);

create table trunkline.installation (
  id uuid not null,
  lock_class bigint default 1953658222 not null,
  channel text not null,
  retention interval default '1 day'::interval not null,
  hold interval default '7 days'::interval not null,
  truncated_xid bigint default 0 not null,
  truncated_snapshot txid_snapshot default '1:1:'::txid_snapshot not null,
  created_at timestamp with time zone default now() not null,
  inbox_retention interval default '30 days'::interval not null,
  published text[] default '{}'::text[] not null
);

create table trunkline.log (
  id bigint default nextval('trunkline.log_id_seq'::regclass) not null,
  xid bigint default txid_current() not null,
  topic bigint not null,
  operation "char" not null,
  old json,
  new json,
  key text,
  type text,
  payload json,
  headers json,
  created_at timestamp with time zone default clock_timestamp() not null
);

create table trunkline.log_0 (
  id bigint default nextval('trunkline.log_id_seq'::regclass) not null,
  xid bigint default txid_current() not null,
  topic bigint not null,
  operation "char" not null,
  old json,
  new json,
  key text,
  type text,
  payload json,
  headers json,
  created_at timestamp with time zone default clock_timestamp() not null
) inherits (trunkline.log);

create table trunkline.log_1 (
  id bigint default nextval('trunkline.log_id_seq'::regclass) not null,
  xid bigint default txid_current() not null,
  topic bigint not null,
  operation "char" not null,
  old json,
  new json,
  key text,
  type text,
  payload json,
  headers json,
  created_at timestamp with time zone default clock_timestamp() not null
) inherits (trunkline.log);

create table trunkline.log_2 (
  id bigint default nextval('trunkline.log_id_seq'::regclass) not null,
  xid bigint default txid_current() not null,
  topic bigint not null,
  operation "char" not null,
  old json,
  new json,
  key text,
  type text,
  payload json,
  headers json,
  created_at timestamp with time zone default clock_timestamp() not null
) inherits (trunkline.log);

create table trunkline.migration (
  number smallint not null,
  name text not null,
  checksum text not null,
  applied_at timestamp with time zone default now() not null
);

create table trunkline.parked_event (
  id bigint not null,
  projection text not null,
  build bigint not null,
  partition integer not null,
  aggregate_type text not null,
  aggregate_id text not null,
  "position" bigint not null,
  event_id uuid not null,
  version bigint not null,
  type text not null,
  attempts bigint default 0 not null,
  error_code text,
  error text,
  first_attempt_at timestamp with time zone,
  last_attempt_at timestamp with time zone,
  parked_at timestamp with time zone default clock_timestamp() not null,
  request text
);

create table trunkline.projection (
  name text not null,
  builds bigint default 0 not null,
  created_at timestamp with time zone default now() not null
);

create table trunkline.projection_build (
  projection text not null,
  build bigint not null,
  version integer not null,
  mode text not null,
  state text not null,
  partitions integer not null,
  categories text[],
  tables text[] default '{}'::text[] not null,
  built_as text[] default '{}'::text[] not null,
  replay_until bigint default 0 not null,
  created_at timestamp with time zone default now() not null,
  live_at timestamp with time zone
);

create table trunkline.projection_member (
  projection text not null,
  build bigint not null,
  owner uuid not null,
  process text not null,
  expires_at timestamp with time zone not null,
  started_at timestamp with time zone default now() not null
);

create table trunkline.projection_partition (
  projection text not null,
  build bigint not null,
  partition integer not null,
  "position" bigint default 0 not null,
  anchor_position bigint,
  anchor_id uuid,
  owner uuid,
  epoch bigint default 0 not null,
  failing_position bigint,
  failing_stream text,
  attempts bigint default 0 not null,
  error_code text,
  error text,
  failing_since timestamp with time zone,
  updated_at timestamp with time zone default now() not null
);

create table trunkline.reader (
  name text not null,
  "position" text not null,
  snapshot txid_snapshot not null,
  updated_at timestamp with time zone default now() not null,
  created_at timestamp with time zone default now() not null
);

create table trunkline.relay (
  name text not null,
  slots smallint not null,
  topics bigint[],
  sink text not null,
  created_at timestamp with time zone default now() not null
);

create table trunkline.relay_checkpoint (
  id bigint default nextval('trunkline.relay_checkpoint_id_seq'::regclass) not null,
  relay text not null,
  slot smallint not null,
  "position" text not null,
  snapshot txid_snapshot not null
);

create table trunkline.relay_checkpoint_0 (
  id bigint default nextval('trunkline.relay_checkpoint_id_seq'::regclass) not null,
  relay text not null,
  slot smallint not null,
  "position" text not null,
  snapshot txid_snapshot not null
) inherits (trunkline.relay_checkpoint);

create table trunkline.relay_checkpoint_1 (
  id bigint default nextval('trunkline.relay_checkpoint_id_seq'::regclass) not null,
  relay text not null,
  slot smallint not null,
  "position" text not null,
  snapshot txid_snapshot not null
) inherits (trunkline.relay_checkpoint);

create table trunkline.relay_mark (
  relay text not null,
  slot smallint not null,
  log_id bigint not null,
  xid bigint not null,
  attempts bigint default 1 not null,
  alone boolean not null,
  started_at timestamp with time zone default clock_timestamp() not null
);

create table trunkline.relay_member (
  relay text not null,
  owner uuid not null,
  process text not null,
  expires_at timestamp with time zone not null,
  started_at timestamp with time zone default now() not null
);

create table trunkline.relay_slot (
  relay text not null,
  slot smallint not null,
  owner uuid,
  epoch bigint default 0 not null,
  suspect boolean default false not null
);

create table trunkline.relay_turn (
  only_row boolean default true not null,
  side smallint default 0 not null,
  first_id bigint default 0 not null,
  rows_max bigint default 20000 not null,
  copied boolean default false not null,
  changed_at timestamp with time zone default now() not null,
  pause interval default '00:00:10'::interval not null
);

create table trunkline.routine (
  name text not null,
  checksum text not null,
  version text not null,
  applied_at timestamp with time zone default now() not null
);

create table trunkline.slot (
  slot smallint not null,
  opened_at timestamp with time zone,
  closed_at timestamp with time zone
);

create table trunkline.subject_key (
  subject text not null,
  key_id uuid,
  secret text,
  master_key text,
  created_at timestamp with time zone default now() not null,
  forgotten_at timestamp with time zone
);

create table trunkline.tick (
  log_id bigint not null,
  xid bigint default txid_current() not null,
  snapshot txid_snapshot default txid_current_snapshot() not null,
  created_at timestamp with time zone default clock_timestamp() not null
);

create table trunkline.topic (
  id bigint not null,
  name text not null,
  relation oid,
  captured boolean default false not null,
  rows text default 'full'::text not null,
  exclude text[] default '{}'::text[] not null,
  filter text,
  wake text,
  key_columns text[] default '{}'::text[] not null,
  created_at timestamp with time zone default now() not null
);

-- constraints

alter table trunkline.aggregate_snapshot add constraint aggregate_snapshot_pkey PRIMARY KEY (aggregate_type, aggregate_id, schema_version);

alter table trunkline.aggregate_snapshot add constraint aggregate_snapshot_schema_version_check CHECK ((schema_version > 0));

alter table trunkline.aggregate_snapshot add constraint aggregate_snapshot_version_check CHECK ((version > 0));

alter table trunkline.event add constraint event_aggregate_type_check CHECK (((aggregate_type <> ''::text) AND (aggregate_type !~~ '%-%'::text)));

alter table trunkline.event add constraint event_schema_version_check CHECK ((schema_version > 0));

alter table trunkline.event add constraint event_stream PRIMARY KEY (aggregate_type, aggregate_id, version);

alter table trunkline.event add constraint event_type_check CHECK ((type <> ''::text));

alter table trunkline.event add constraint event_version_check CHECK ((version > 0));

alter table trunkline.failed_delivery add constraint failed_delivery_pkey PRIMARY KEY (id);

alter table trunkline.failed_delivery add constraint failed_delivery_relay_fkey FOREIGN KEY (relay) REFERENCES trunkline.relay(name) ON DELETE CASCADE;

alter table trunkline.failed_delivery add constraint failed_delivery_relay_log_id_xid_key UNIQUE (relay, log_id, xid);

alter table trunkline.failed_delivery add constraint failed_delivery_state_check CHECK ((state = ANY (ARRAY['retry'::text, 'dead'::text, 'redrive'::text, 'done'::text])));

alter table trunkline.inbox add constraint inbox_pkey PRIMARY KEY (consumer, message_id);

alter table trunkline.installation add constraint installation_lock_class_check CHECK ((lock_class = 1953658222));

alter table trunkline.migration add constraint migration_pkey PRIMARY KEY (number);

alter table trunkline.parked_event add constraint parked_event_pkey PRIMARY KEY (id);

alter table trunkline.parked_event add constraint parked_event_projection_build_fkey FOREIGN KEY (projection, build) REFERENCES trunkline.projection_build(projection, build) ON DELETE CASCADE;

alter table trunkline.parked_event add constraint parked_event_projection_build_position_key UNIQUE (projection, build, "position");

alter table trunkline.parked_event add constraint parked_event_request_check CHECK ((request = ANY (ARRAY['retry'::text, 'discard'::text])));

alter table trunkline.projection add constraint projection_name_check CHECK ((name <> ''::text));

alter table trunkline.projection add constraint projection_pkey PRIMARY KEY (name);

alter table trunkline.projection_build add constraint projection_build_mode_check CHECK ((mode = ANY (ARRAY['inline'::text, 'async'::text])));

alter table trunkline.projection_build add constraint projection_build_partitions_check CHECK (((partitions >= 1) AND (partitions <= 64)));

alter table trunkline.projection_build add constraint projection_build_pkey PRIMARY KEY (projection, build);

alter table trunkline.projection_build add constraint projection_build_projection_fkey FOREIGN KEY (projection) REFERENCES trunkline.projection(name) ON DELETE CASCADE;

alter table trunkline.projection_build add constraint projection_build_projection_state_key UNIQUE (projection, state);

alter table trunkline.projection_build add constraint projection_build_state_check CHECK ((state = ANY (ARRAY['building'::text, 'live'::text])));

alter table trunkline.projection_build add constraint projection_build_version_check CHECK ((version > 0));

alter table trunkline.projection_member add constraint projection_member_pkey PRIMARY KEY (projection, build, owner);

alter table trunkline.projection_member add constraint projection_member_projection_build_fkey FOREIGN KEY (projection, build) REFERENCES trunkline.projection_build(projection, build) ON DELETE CASCADE;

alter table trunkline.projection_partition add constraint projection_partition_pkey PRIMARY KEY (projection, build, partition);

alter table trunkline.projection_partition add constraint projection_partition_projection_build_fkey FOREIGN KEY (projection, build) REFERENCES trunkline.projection_build(projection, build) ON DELETE CASCADE;

alter table trunkline.reader add constraint reader_pkey PRIMARY KEY (name);

alter table trunkline.relay add constraint relay_pkey PRIMARY KEY (name);

alter table trunkline.relay add constraint relay_slots_check CHECK (((slots >= 1) AND (slots <= 256)));

alter table trunkline.relay_mark add constraint relay_mark_pkey PRIMARY KEY (relay, log_id, xid);

alter table trunkline.relay_mark add constraint relay_mark_relay_fkey FOREIGN KEY (relay) REFERENCES trunkline.relay(name) ON DELETE CASCADE;

alter table trunkline.relay_member add constraint relay_member_pkey PRIMARY KEY (relay, owner);

alter table trunkline.relay_member add constraint relay_member_relay_fkey FOREIGN KEY (relay) REFERENCES trunkline.relay(name) ON DELETE CASCADE;

alter table trunkline.relay_slot add constraint relay_slot_pkey PRIMARY KEY (relay, slot);

alter table trunkline.relay_slot add constraint relay_slot_relay_fkey FOREIGN KEY (relay) REFERENCES trunkline.relay(name) ON DELETE CASCADE;

alter table trunkline.relay_turn add constraint relay_turn_only_row_check CHECK (only_row);

alter table trunkline.relay_turn add constraint relay_turn_pkey PRIMARY KEY (only_row);

alter table trunkline.relay_turn add constraint relay_turn_side_check CHECK ((side = ANY (ARRAY[0, 1])));

alter table trunkline.routine add constraint routine_pkey PRIMARY KEY (name);

alter table trunkline.slot add constraint slot_pkey PRIMARY KEY (slot);

alter table trunkline.slot add constraint slot_slot_check CHECK (((slot >= 0) AND (slot <= 2)));

alter table trunkline.subject_key add constraint subject_key_or_forgotten CHECK ((((secret IS NULL) = (key_id IS NULL)) AND ((secret IS NULL) = (forgotten_at IS NOT NULL))));

alter table trunkline.subject_key add constraint subject_key_pkey PRIMARY KEY (subject);

alter table trunkline.topic add constraint topic_rows_check CHECK ((rows = ANY (ARRAY['full'::text, 'keys'::text])));

alter table trunkline.topic add constraint topic_wake_check CHECK ((wake = ANY (ARRAY['elided'::text, 'always'::text, 'off'::text])));

-- indexes

CREATE INDEX aggregate_snapshot_subjects ON trunkline.aggregate_snapshot USING gin (subjects) WHERE (subjects <> '{}'::text[]);

CREATE UNIQUE INDEX event_id ON trunkline.event USING btree (id);

CREATE UNIQUE INDEX event_position ON trunkline.event USING btree ("position");

CREATE INDEX failed_delivery_ahead ON trunkline.failed_delivery USING btree (relay, slot, xid);

CREATE INDEX failed_delivery_dead ON trunkline.failed_delivery USING btree (relay, id) WHERE (state = 'dead'::text);

CREATE INDEX failed_delivery_done ON trunkline.failed_delivery USING btree (relay, slot) WHERE (state = 'done'::text);

CREATE INDEX failed_delivery_due ON trunkline.failed_delivery USING btree (relay, retry_at, id) WHERE (state = 'retry'::text);

CREATE INDEX failed_delivery_live ON trunkline.failed_delivery USING btree (relay, slot, topic, hashtextextended(key, (0)::bigint), id) WHERE ((state = 'retry'::text) OR holds);

CREATE INDEX failed_delivery_redrive ON trunkline.failed_delivery USING btree (relay, slot, id) WHERE (state = 'redrive'::text);

CREATE INDEX inbox_handled_at ON trunkline.inbox USING btree (handled_at);

CREATE UNIQUE INDEX installation_one_row ON trunkline.installation USING btree ((true));

CREATE INDEX log_0_topic_xid_id ON trunkline.log_0 USING btree (topic, xid, id);

CREATE INDEX log_1_topic_xid_id ON trunkline.log_1 USING btree (topic, xid, id);

CREATE INDEX log_2_topic_xid_id ON trunkline.log_2 USING btree (topic, xid, id);

CREATE INDEX parked_event_request ON trunkline.parked_event USING btree (projection, build, partition) WHERE (request IS NOT NULL);

CREATE INDEX parked_event_stream ON trunkline.parked_event USING btree (projection, build, partition, aggregate_type, aggregate_id, "position");

CREATE INDEX relay_checkpoint_0_place ON trunkline.relay_checkpoint_0 USING btree (relay, slot, id);

CREATE INDEX relay_checkpoint_1_place ON trunkline.relay_checkpoint_1 USING btree (relay, slot, id);

CREATE INDEX tick_xid ON trunkline.tick USING btree (xid);

CREATE INDEX tick_xmax ON trunkline.tick USING btree (txid_snapshot_xmax(snapshot));

CREATE INDEX topic_id ON trunkline.topic USING btree (id);

CREATE UNIQUE INDEX topic_relation ON trunkline.topic USING btree (relation) WHERE (relation IS NOT NULL);

-- functions

CREATE OR REPLACE FUNCTION trunkline.add_subject_keys(in_keys text)
 RETURNS TABLE(subject text, key_id text, secret text, master_key text)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
begin
  -- In one order, so that two transactions do not wait for each other.
  insert into subject_key (subject, key_id, secret, master_key)
  select k.subject, k.key_id, k.secret, k.master_key
  from json_to_recordset(in_keys::json) as k (subject text, key_id uuid, secret text, master_key text)
  order by k.subject
  on conflict do nothing;
  return query
  select k.subject, k.key_id::text, k.secret, k.master_key
  from subject_key as k
  where k.subject in (select n.subject from json_to_recordset(in_keys::json) as n (subject text));
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.aggregate_page(in_type text, in_id text, in_schema_version integer, in_base bigint, in_base_id uuid, in_subjects text, in_to bigint, in_as_of timestamp with time zone, in_rows integer, in_bytes bigint, OUT head bigint, OUT base bigint, OUT base_id uuid, OUT state text, OUT subjects text, OUT events text)
 RETURNS record
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
begin
  select e.version into head
  from event as e
  where e.aggregate_type = in_type and e.aggregate_id = in_id
    and (in_to is null or e.version <= in_to) and (in_as_of is null or e.created_at <= in_as_of)
  order by e.version desc
  limit 1;
  head := coalesce(head, 0);
  base := 0;
  if in_base between 1 and head and is_event_at(in_type, in_id, in_base, in_base_id)
    and has_subject_keys(array(select json_array_elements_text(in_subjects::json)))
  then
    base := in_base;
  elsif in_schema_version is not null then
    select s.version, s.event_id, s.state::text, array_to_json(s.subjects)::text into base, base_id, state, subjects
    from aggregate_snapshot as s
    where s.aggregate_type = in_type and s.aggregate_id = in_id and s.schema_version = in_schema_version and s.version <= head
      and is_event_at(in_type, in_id, s.version, s.event_id) and has_subject_keys(s.subjects);
    base := coalesce(base, 0);
  end if;
  if base < head then
    select p.events into events from event_stream_page(in_type, in_id, base + 1, head, null, false, in_rows, in_bytes) as p;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.append(stream text, expected_version bigint, events jsonb)
 RETURNS bigint
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select append($1, $2::text, $3)
$function$;

CREATE OR REPLACE FUNCTION trunkline.append(stream text, expected_version text, events jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  divider constant integer := position('-' in stream);
  list constant jsonb := case when jsonb_typeof(events) = 'object' then jsonb_build_array(events) else events end;
  place text;
  wrong text;
  ids uuid[];
  types text[];
  schema_versions integer[];
  payloads json;
  metadata json;
  result record;
begin
  if coalesce(stream, '') = '' or divider = 1 then
    raise exception using errcode = 'TL005', message = format('append: the stream is %L, expected ''type-id''', stream),
      hint = 'For example: select append(''order-17'', ''no-stream'', ''{"type": "created", "payload": {}}'').';
  end if;
  -- What the library could not read, either.
  if octet_length(stream) - least(divider, 1) >= 1000 then
    raise exception using errcode = 'TL005',
      message = format('append: the stream %L has a name of %s bytes', left(stream, 50) || '…', octet_length(stream)),
      hint = 'Type and id have less than 1,000 bytes together.';
  end if;
  if expected_version is null or expected_version !~ '^(any|no-stream|stream-exists|[0-9]{1,18})$' then
    raise exception using errcode = 'TL005',
      message = format('append to %s: the expected version is %L', stream, expected_version),
      hint = 'Expected a number from 0 on, ''any'', ''no-stream'' or ''stream-exists''.';
  end if;
  if jsonb_typeof(list) is distinct from 'array' or list = '[]' then
    raise exception using errcode = 'TL005',
      message = format('append to %s: events are %s', stream, case when list = '[]' then 'an empty list' else 'a JSON ' || coalesce(jsonb_typeof(list), 'null') end),
      hint = 'Pass an object with type and payload, or a list of such objects.';
  end if;
  select e.ordinal, p.problem into place, wrong
  from jsonb_array_elements(list) with ordinality as e (value, ordinal)
  cross join lateral (
    select case
      when jsonb_typeof(e.value) <> 'object' then 'is a JSON ' || jsonb_typeof(e.value) || ', expected an object'
      when jsonb_typeof(e.value -> 'type') is distinct from 'string' or e.value ->> 'type' = '' then 'has no type'
      when jsonb_typeof(e.value -> 'metadata') not in ('object', 'null') then 'has metadata that is a JSON ' || jsonb_typeof(e.value -> 'metadata')
      when e.value ->> 'schemaVersion' !~ '^[1-9][0-9]{0,8}$' then 'has a schemaVersion that is no number from 1 on'
      when e.value ->> 'id' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then 'has an id that is no uuid'
    end as problem
  ) as p
  where p.problem is not null
  order by e.ordinal
  limit 1;
  if wrong is null then
    select min(d.second), 'has the id of another' into place, wrong
    from (
      select max(e.ordinal) as second
      from jsonb_array_elements(list) with ordinality as e (value, ordinal)
      where e.value ->> 'id' is not null
      group by lower(e.value ->> 'id')
      having count(*) > 1
    ) as d
    having count(*) > 0;
  end if;
  if wrong is not null then
    raise exception using errcode = 'TL005', message = format('append to %s: event %s %s', stream, place, wrong),
      hint = 'An event is {"type": "created", "payload": {}}, and may have id (a uuid), schemaVersion and metadata (an object).';
  end if;

  select array_agg(coalesce((e.value ->> 'id')::uuid, event_id()) order by e.ordinal), array_agg(e.value ->> 'type' order by e.ordinal),
    array_agg((e.value ->> 'schemaVersion')::integer order by e.ordinal), json_agg(e.value -> 'payload' order by e.ordinal),
    json_agg(coalesce(nullif(e.value -> 'metadata', 'null'), '{}') order by e.ordinal)
  into ids, types, schema_versions, payloads, metadata
  from jsonb_array_elements(list) with ordinality as e (value, ordinal);
  select * into result
  from append_events(
    case when divider = 0 then stream else left(stream, divider - 1) end,
    case when divider = 0 then '' else substr(stream, divider + 1) end,
    case expected_version when 'any' then -1 when 'stream-exists' then -2 when 'no-stream' then 0 else expected_version::bigint end,
    ids,
    types,
    schema_versions,
    payloads,
    metadata
  );
  return result.first_version + jsonb_array_length(list) - 1;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.append_events(in_type text, in_id text, in_expected bigint, in_ids uuid[], in_types text[], in_schema_versions integer[], in_payloads json, in_metadata json, OUT first_version bigint, OUT positions text, OUT created_at timestamp with time zone, OUT is_repeated boolean)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  in_count constant integer := cardinality(in_ids);
  tail bigint;
  tail_at timestamptz;
  written integer;
begin
  is_repeated := false;
  if in_expected < 0 then
    perform pg_advisory_xact_lock(hashtextextended(in_type || '-' || in_id, 7));
  end if;
  loop
    if in_expected <> 0 then
      select e.version, e.created_at into tail, tail_at
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id
      order by e.version desc
      limit 1;
      -- The stream is not as expected, or the events are repeated.
      exit when coalesce(tail, 0) <> in_expected and in_expected <> -1 and (in_expected <> -2 or tail is null);
    end if;
    first_version := coalesce(tail, 0) + 1;
    created_at := greatest(tail_at, date_trunc('milliseconds', clock_timestamp()));

    -- The first row decides: whoever has written it owns the versions after it.
    insert into event (id, aggregate_type, aggregate_id, version, type, schema_version, payload, metadata, created_at)
    values (in_ids[1], in_type, in_id, append_events.first_version, in_types[1], coalesce(in_schema_versions[1], 1), in_payloads -> 0,
      coalesce((in_metadata -> 0)::jsonb, '{}'), append_events.created_at)
    on conflict do nothing
    returning position into positions;
    get diagnostics written = row_count;
    if written = 1 and in_count > 1 then
      -- An id that is known is told of by append_repeated(). One that somebody writes at this very moment is a unique_violation:
      -- "on conflict" would make each row half as dear again.
      -- One id after the other: for "= any" a plan that was made while the table was small reads all of it.
      exit when exists (
        select from unnest(in_ids) as i (id) cross join lateral (select k.position from event as k where k.id = i.id limit 1) as k
        where k.position <> append_events.positions::bigint
      );
      with rest as (
        insert into event (id, aggregate_type, aggregate_id, version, type, schema_version, payload, metadata, created_at)
        select e.id, in_type, in_id, append_events.first_version + e.ordinal - 1, e.type, coalesce(e.schema_version, 1),
          e.payload, coalesce(e.metadata::jsonb, '{}'), append_events.created_at
        from rows from (
          unnest(in_ids, in_types, in_schema_versions), json_array_elements(in_payloads), json_array_elements(in_metadata)
        ) with ordinality as e (id, type, schema_version, payload, metadata, ordinal)
        where e.ordinal > 1
        order by e.ordinal
        returning position
      )
      select append_events.positions || ',' || string_agg(w.position::text, ',' order by w.position), 1 + count(*)
      into positions, written
      from rest as w;
    end if;

    if written = in_count then
      if wake_mode() <> 'off' and (
        wake_mode() = 'always' or somebody_sleeps(1953658222, wake_key('event'::regclass::oid::bigint))
      ) then
        perform pg_notify((select i.channel from installation as i), '');
      end if;
      return;
    end if;
    -- A writer with an expected version was faster than one without: after it, then. Unless an id is taken.
    exit when in_expected >= 0 or written > 0 or exists (
      select from unnest(in_ids) as i (id) cross join lateral (select from event as k where k.id = i.id limit 1) as k
    );
  end loop;

  -- Tells the first result when these very events are there, raises otherwise.
  select r.first_version, r.positions, r.created_at, true into first_version, positions, created_at, is_repeated
  from append_repeated(in_type, in_id, in_expected, in_ids, in_types, in_schema_versions, in_payloads, coalesce(positions, '')) as r;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.append_group(in_stream_types text[], in_stream_ids text[], in_expected bigint[], in_is_queued boolean, in_units integer[], in_places integer[], in_ids uuid[], in_types text[], in_schema_versions integer[], in_payloads json, in_metadata json, in_lock_timeout_ms integer, OUT positions text, OUT versions text)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  tails bigint[];
  times timestamptz[];
begin
  perform set_config('lock_timeout', in_lock_timeout_ms::text, true);
  if in_is_queued then
    perform pg_advisory_xact_lock(hashtextextended(u.type || '-' || u.id, 7))
    from unnest(in_stream_types, in_stream_ids, in_expected) as u (type, id, expected)
    where u.expected < 0;
  end if;
  -- With a snapshot of its own, after the locks. Where a stream has more events than expected, the one expected is found, and the
  -- INSERT meets the one after it.
  select array_agg(s.tail), array_agg(s.created_at)
  into tails, times
  from (
    select greatest(t.created_at, date_trunc('milliseconds', clock_timestamp())) as created_at,
      case when u.expected in (-1, coalesce(t.version, 0)) or (u.expected = -2 and t.version > 0) then coalesce(t.version, 0) end as tail
    from unnest(in_stream_types, in_stream_ids, in_expected) with ordinality as u (type, id, expected, place)
    left join lateral (
      select e.version, e.created_at
      from event as e
      where e.aggregate_type = u.type and e.aggregate_id = u.id
        and e.version <= case when u.expected < 0 then 9223372036854775807 else u.expected end
      order by e.version desc
      limit 1
    ) as t on true
    order by u.place
  ) as s;
  if array_position(tails, null) is not null then
    raise exception using errcode = 'TL010', message = 'append_group: a stream is not at its expected version';
  end if;

  with written as (
    insert into event (id, aggregate_type, aggregate_id, version, type, schema_version, payload, metadata, created_at)
    select e.id, in_stream_types[e.unit], in_stream_ids[e.unit], tails[e.unit] + e.place, e.type, coalesce(e.schema_version, 1), e.payload,
      coalesce(e.metadata::jsonb, '{}'), times[e.unit]
    from rows from (
      unnest(in_units, in_places, in_ids, in_types, in_schema_versions), json_array_elements(in_payloads), json_array_elements(in_metadata)
    ) with ordinality as e (unit, place, id, type, schema_version, payload, metadata, ordinal)
    order by e.ordinal
    returning position, version
  )
  select string_agg(w.position::text, ',' order by w.position), string_agg(w.version::text, ',' order by w.position)
  into positions, versions
  from written as w;

  if wake_mode() <> 'off' and (
    wake_mode() = 'always' or somebody_sleeps(1953658222, wake_key('event'::regclass::oid::bigint))
  ) then
    perform pg_notify((select i.channel from installation as i), '');
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.append_repeated(in_type text, in_id text, in_expected bigint, in_ids uuid[], in_types text[], in_schema_versions integer[], in_payloads json, own text, OUT first_version bigint, OUT positions text, OUT created_at timestamp with time zone)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  in_count constant integer := cardinality(in_ids);
  stream constant text := in_type || case when in_id = '' then '' else '-' || in_id end;
  known bigint;
  same bigint;
  actual bigint;
  taken record;
begin
  -- \u0000 is what jsonb cannot hold; such payloads are compared as they are written.
  select count(*), count(*) filter (
      where k.aggregate_type = in_type and k.aggregate_id = in_id and k.type = e.type
        and k.schema_version = coalesce(e.schema_version, 1)
        and case
          when k.payload::text = e.payload::text then true
          when k.payload::text ~ '\\u0000' or e.payload::text ~ '\\u0000' then false
          else k.payload::jsonb = e.payload::jsonb
        end
        and k.version - e.ordinal = k.base
    ), min(k.version), string_agg(k.position::text, ',' order by k.version), min(k.created_at)
  into known, same, first_version, positions, created_at
  from rows from (
    unnest(in_ids, in_types, in_schema_versions), json_array_elements(in_payloads)
  ) with ordinality as e (id, type, schema_version, payload, ordinal)
  join (
    select x.*, min(x.version) over () - 1 as base
    from unnest(in_ids) as i (id) cross join lateral (select * from event as k where k.id = i.id limit 1) as x
    where x.position::text <> all (string_to_array(own, ','))
  ) as k on k.id = e.id;

  if known = in_count and same = in_count then
    return;
  end if;
  if known > 0 then
    select k.id, k.aggregate_type || case when k.aggregate_id = '' then '' else '-' || k.aggregate_id end as stream, k.version
    into taken
    from unnest(in_ids) as i (id) cross join lateral (select * from event as e where e.id = i.id limit 1) as k
    where k.position::text <> all (string_to_array(own, ','))
    order by k.position
    limit 1;
    raise exception using errcode = 'TL012',
      message = format('append to %s: event id %s is taken by version %s of %s, which is not the same append', stream, taken.id, taken.version, taken.stream),
      detail = json_build_object('stream', stream, 'id', taken.id, 'takenBy', taken.stream, 'version', taken.version, 'known', known, 'given', in_count),
      hint = 'To repeat an append, give all of its events again, in their order and with the same payloads. For other events make new ids.';
  end if;
  select coalesce(max(e.version), 0) into actual from event as e where e.aggregate_type = in_type and e.aggregate_id = in_id;
  raise exception using errcode = 'TL010',
    message = format('%s is at version %s, expected %s', stream, actual,
      case in_expected when 0 then 'no stream' when -2 then 'an existing stream' when -1 then 'any version' else in_expected::text end),
    detail = json_build_object('stream', stream, 'expected',
      case in_expected when 0 then '"no-stream"' when -2 then '"stream-exists"' when -1 then '"any"' else in_expected::text end::json, 'actual', actual),
    hint = 'Read the stream again, decide again, append with the new version.';
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture(table_name text, rows text DEFAULT 'full'::text, exclude text[] DEFAULT '{}'::text[], filter text DEFAULT NULL::text, wake text DEFAULT NULL::text)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  place constant text := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'log'::regclass);
  target constant regclass := find_table(capture.table_name);
  label constant text := (select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = target);
  previous topic%rowtype;
  spec topic%rowtype;
  standing record;
  missing record;
  changed boolean := false;
begin
  perform pg_advisory_xact_lock(hashtextextended('trunkline capture', target::oid::bigint));
  select * into previous from topic as t where t.relation = target;
  spec := checked_topic(target, label, capture.rows, capture.exclude, capture.filter, capture.wake);

  if previous.id is null then
    -- So that a trigger knows its topic without an argument to cast.
    spec.id := target::oid::bigint;
    insert into topic (id, name, relation, captured, rows, exclude, filter, wake, key_columns)
    values (spec.id, spec.name, spec.relation, true, spec.rows, spec.exclude, spec.filter, spec.wake, spec.key_columns);
  else
    spec.id := previous.id;
    update topic as t
    set name = spec.name, captured = true, rows = spec.rows, exclude = spec.exclude, filter = spec.filter, wake = spec.wake,
      key_columns = spec.key_columns
    where t.relation = target
      and (t.name, t.captured, t.rows, t.exclude, t.filter, t.wake, t.key_columns)
        is distinct from (spec.name, true, spec.rows, spec.exclude, spec.filter, spec.wake, spec.key_columns);
  end if;

  -- A table that got a child, say, is captured by row from now on: what it had would write rows twice. So would what
  -- a restore brought with it.
  for standing in
    (
      select s.relation, s.name from standing_triggers(spec.id) as s
      except
      select w.relation, w.name from wanted_triggers(spec) as w
    )
    union
    select s.relation, s.name from stray_triggers(target) as s
  loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
    changed := true;
  end loop;
  for standing in select m.relation, m.name from missing_triggers(spec) as m where m.stands loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
    changed := true;
  end loop;
  if changed or exists (select from missing_triggers(spec)) then
    perform install_keys_function(spec);
  end if;
  for missing in select * from missing_triggers(spec) loop
    changed := true;
    execute format(
      'create trigger %I ' || missing.event || ' execute function %I.%I(%s)',
      missing.name, missing.relation::regclass, place, missing.function_name,
      (select string_agg(quote_literal(a), ', ') from unnest(missing.arguments) as a)
    );
  end loop;
  -- Who creates or attaches a partition must be allowed to call what its clone of the row trigger calls.
  for missing in
    select distinct c.relowner::regrole as owner, w.function_name
    from wanted_triggers(spec) as w
    join pg_class as c on c.oid = w.relation and c.relkind = 'p'
    join pg_proc as p on p.proname = w.function_name and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass)
    where not has_function_privilege(c.relowner, p.oid, 'EXECUTE')
  loop
    execute format('grant execute on function %I.%I to %s', place, missing.function_name, missing.owner);
  end loop;
  -- Rows may have changed while nobody captured them, or under other rules: readers take a fresh copy.
  if changed and previous.id is not null then
    perform write_log(spec.id, array['x'], array[null::json], array[null::json]);
  end if;
  if changed then
    perform pg_notify(i.channel, '') from installation as i where wake_mode() <> 'off' and spec.wake is distinct from 'off';
  end if;
  return spec.id;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_custom()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET "DateStyle" TO 'ISO'
 SET "IntervalStyle" TO 'postgres'
 SET extra_float_digits TO '1'
AS $function$
declare
  spec topic%rowtype;
  image text;
  old_side text := 'select null::json as image, 0::bigint as ordinal where false';
  new_side text := old_side;
  olds json[];
  news json[];
  operations text[];
  wake text := coalesce(nullif(tg_argv[1], ''), wake_mode());
begin
  begin
    select * into strict spec from topic where id = tg_argv[0]::bigint and relation is not null;
    -- A writer whose snapshot is older than the capture sees other rules than this trigger stands for.
    if topic_rules(spec) <> tg_argv[6] then
      raise exception 'the rules of the topic changed';
    end if;
    image := captured_image(spec, tg_relid);
    if tg_level = 'ROW' then
      -- One row travels as a parameter: $1 is OLD, $2 is NEW.
      if tg_op <> 'INSERT' then
        old_side := 'select ' || image || ' as image, 1::bigint as ordinal from ' || captured_source(tg_relid, '(select ($1).*)') || ' as r';
      end if;
      if tg_op <> 'DELETE' then
        new_side := 'select ' || image || ' as image, 1::bigint as ordinal from ' || captured_source(tg_relid, '(select ($2).*)') || ' as r';
      end if;
    else
      if tg_op <> 'INSERT' then
        old_side := 'select ' || image || ' as image, row_number() over () as ordinal from ' || captured_source(tg_relid, 'trunkline_old') || ' as r';
      end if;
      if tg_op <> 'DELETE' then
        new_side := 'select ' || image || ' as image, row_number() over () as ordinal from ' || captured_source(tg_relid, 'trunkline_new') || ' as r';
      end if;
    end if;
    execute captured_rows(old_side, new_side, spec.rows = 'keys') into olds, news, operations
    using
      case when tg_level = 'ROW' and tg_op <> 'INSERT' then old end,
      case when tg_level = 'ROW' and tg_op <> 'DELETE' then new end;
  exception when others then
    operations := array['x'];
    olds := array[null::json];
    news := array[null::json];
  end;
  if operations is null then
    return null;
  end if;

  perform write_log(tg_argv[0]::bigint, operations, olds, news);
  if wake = 'always' or (wake = 'elided' and somebody_sleeps(tg_argv[2]::integer, tg_argv[3]::integer)) then
    perform pg_notify(tg_argv[4], '');
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_delete()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET "DateStyle" TO 'ISO'
 SET "IntervalStyle" TO 'postgres'
 SET extra_float_digits TO '1'
AS $function$
-- A captured table may have columns of any name: tg_relid is ours, and n.* is never a column n.
#variable_conflict use_variable
declare
  written bigint;
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old)
    select tg_relid, 'd', row_to_json(o.*) from trunkline_old as o;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old)
    select tg_relid, 'd', row_to_json(o.*) from trunkline_old as o;
  else
    insert into log_2 (topic, operation, old)
    select tg_relid, 'd', row_to_json(o.*) from trunkline_old as o;
  end if;
  get diagnostics written = row_count;

  -- In one expression: is there anything left to do? See capture_insert.
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_insert()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET "DateStyle" TO 'ISO'
 SET "IntervalStyle" TO 'postgres'
 SET extra_float_digits TO '1'
AS $function$
-- A captured table may have columns of any name: tg_relid is ours, and n.* is never a column n.
#variable_conflict use_variable
declare
  written bigint;
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  else
    insert into log_2 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  end if;
  get diagnostics written = row_count;

  -- In one expression: is there anything left to do? A tick is due with each id that is a multiple of 4,096.
  -- And an eventcount (docs/log.md, "Waking"): readers that sleep hold the lock shared, and no interrupt can come
  -- between taking it and giving it back.
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_row()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET "DateStyle" TO 'ISO'
 SET "IntervalStyle" TO 'postgres'
 SET extra_float_digits TO '1'
AS $function$
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  else
    insert into log_2 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  end if;

  perform finish_capture(tg_argv, 1);
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_truncate()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  topic_id constant bigint := tg_argv[0]::bigint;
begin
  if tg_argv[5] = 'x' and 't' = (
    select l.operation from log as l where l.topic = topic_id and l.xid = txid_current() order by l.id desc limit 1
  ) then
    return null;
  end if;
  perform write_log(topic_id, array[tg_argv[5]], array[null::json], array[null::json]);
  perform finish_capture(tg_argv, 1);
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.capture_update()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET "DateStyle" TO 'ISO'
 SET "IntervalStyle" TO 'postgres'
 SET extra_float_digits TO '1'
AS $function$
-- A captured table may have columns of any name: tg_relid is ours, and n.* is never a column n.
#variable_conflict use_variable
declare
  written bigint;
begin
  -- The executor puts the old and the new version of a row into the two transition tables in one step:
  -- equal ordinals are the same row, also when its key changed. FULL JOIN: never a nested loop, whatever
  -- number of rows the cached plan was made for.
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  else
    insert into log_2 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  end if;
  get diagnostics written = row_count;

  -- In one expression: is there anything left to do? See capture_insert.
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.captured_image(spec trunkline.topic, relation oid)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  columns text;
  found_keys bigint;
  image text;
begin
  select string_agg(format('r.%I', a.attname), ', ' order by a.attnum),
    count(*) filter (where a.attname = any (spec.key_columns))
  into columns, found_keys
  from pg_attribute as a
  where a.attrelid = relation
    and a.attnum > 0
    and not a.attisdropped
    and a.attname <> all (spec.exclude)
    and (spec.rows = 'full' or a.attname = any (spec.key_columns));
  if columns is null or (spec.rows = 'keys' and found_keys <> cardinality(spec.key_columns)) then
    raise exception 'the columns that identify a row are gone';
  end if;
  image := format('(select row_to_json(p.*) from (select %s) as p)', columns);
  if spec.filter is not null then
    image := format('case when (%s) then %s end', spec.filter, image);
  end if;
  return image;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.captured_rows(old_side text, new_side text, keys_only boolean)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select format(
    'select array_agg(case when %s then o.image end order by ordinal), array_agg(n.image order by ordinal), '
    || 'array_agg(case when o.image is null then ''i'' when n.image is null then ''d'' else ''u'' end order by ordinal) '
    || 'from (%s) as o full join (%s) as n using (ordinal) where o.image is not null or n.image is not null',
    case when keys_only then 'o.image::text is distinct from n.image::text' else 'true' end,
    old_side,
    new_side
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.captured_source(relation oid, source text)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select case
    when bool_or(a.attgenerated = 'v') then format(
      '(select %s from %s as v)',
      string_agg(
        -- The expression names its columns without a table: they are found in v.
        case a.attgenerated when 'v' then format('(%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname) else format('v.%I', a.attname) end,
        ', ' order by a.attnum
      ),
      source
    )
    else source
  end
  from pg_attribute as a
  left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$function$;

CREATE OR REPLACE FUNCTION trunkline.checked_topic(target regclass, label text, rows text, exclude text[], filter text, wake text)
 RETURNS trunkline.topic
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_variable
declare
  spec topic%rowtype;
  unknown text;
begin
  if rows is null or rows not in ('full', 'keys') then
    raise exception using errcode = 'TL005', message = format('rows is %L, expected ''full'' or ''keys''', rows),
      hint = 'full: old and new images (relays, shapes); keys: key and operation only (caches, mirrors).';
  end if;
  if wake not in ('elided', 'always', 'off') then
    raise exception using errcode = 'TL005', message = format('wake is %L, expected ''elided'', ''always'' or ''off''', wake),
      hint = 'Leave it out to use the installation''s.';
  end if;
  if not has_table_privilege(target, 'TRIGGER') then
    raise exception using errcode = 'TL003', message = format('role %I may not create triggers on %s', current_user, label),
      hint = format('Run as its owner, or: grant trigger on %s to %I.', target, current_user);
  end if;
  spec.relation := target;
  spec.name := label;
  spec.rows := rows;
  spec.wake := wake;
  spec.filter := nullif(btrim(filter), '');
  spec.exclude := coalesce((select array_agg(distinct e order by e) from unnest(exclude) as e), '{}');
  -- An inheritance tree has no key of its own: the parent's does not bind the children.
  spec.key_columns := coalesce((
    select array_agg(a.attname::text order by k.place)
    from pg_index as i
    cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    -- What it INCLUDEs is carried along, and tells no rows apart.
    where i.indrelid = target and i.indisprimary and k.place <= i.indnkeyatts
      and not exists (select from pg_inherits as h join pg_class as c on c.oid = h.inhparent where h.inhparent = target and c.relkind <> 'p')
  ), '{}');

  select e into unknown from unnest(spec.exclude) as e
  where not exists (select from pg_attribute as a where a.attrelid = target and a.attname = e and a.attnum > 0 and not a.attisdropped)
  limit 1;
  if unknown is not null then
    raise exception using errcode = 'TL004', message = format('exclude names %L, which is no column of %s', unknown, label),
      hint = 'Its columns: ' || (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute as a where a.attrelid = target and a.attnum > 0 and not a.attisdropped) || '.';
  end if;
  if spec.key_columns && spec.exclude then
    raise exception using errcode = 'TL005', message = format('exclude names %L, a column of the primary key of %s',
        (select e from unnest(spec.exclude) as e where e = any (spec.key_columns) limit 1), label),
      hint = 'Readers could not tell rows apart. Leave the key in.';
  end if;
  if rows = 'keys' and spec.key_columns = '{}' then
    raise exception using errcode = 'TL005', message = format('%s has no primary key, rows cannot be ''keys''', label),
      hint = 'Add a primary key, or capture it with rows => ''full''.';
  end if;
  if spec.filter is not null then
    begin
      execute format('select 1 from %s as r where (%s) limit 0', target, spec.filter);
    exception when others then
      raise exception using errcode = 'TL006', message = format('the filter of %s is not a condition over its columns: %s', label, sqlerrm),
        hint = 'Write what could stand after WHERE, for example: amount > 0 and country = ''KR''.';
    end;
  end if;
  return spec;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.decodable(image json)
 RETURNS json
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select case
    when pg_catalog.strpos($1::pg_catalog.text, '\u') = 0 then $1
    else pg_catalog.regexp_replace(
      $1::pg_catalog.text,
      '(?<!\\)((?:\\\\)*)\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})',
      '\1@trunkline:u\2',
      'g'
    )::pg_catalog.json
  end
$function$;

CREATE OR REPLACE FUNCTION trunkline.drop_keys_function(topic bigint)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  standing constant regprocedure := (
    select p.oid from pg_proc as p
    where p.proname = 'capture_keys_' || drop_keys_function.topic
      and p.pronamespace = (select c.relnamespace from pg_class as c where c.oid = 'log'::regclass)
  );
begin
  if standing is not null then
    execute format('drop function %s', standing);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.emit(topic text, key text, type text, payload jsonb, headers jsonb DEFAULT NULL::jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  topic_key bigint := hashtextextended(emit.topic, 0);
  place installation%rowtype;
  known boolean;
  written bigint;
begin
  if coalesce(emit.topic, '') = '' then
    raise exception using errcode = 'TL005', message = 'emit: the topic is missing',
      hint = 'Name the topic, for example: select emit(''order'', ''42'', ''created'', ''{}'').';
  end if;
  if emit.headers is not null and jsonb_typeof(emit.headers) <> 'object' then
    raise exception using errcode = 'TL005',
      message = format('emit: headers are a JSON %s, expected an object', jsonb_typeof(emit.headers)),
      hint = 'Pass headers as an object of names and values, or null.';
  end if;
  if emit.key is not null then
    perform pg_advisory_xact_lock(hashtextextended(emit.topic || chr(31) || emit.key, 0));
  end if;
  select * into strict place from installation;
  known := exists (select from topic as t where t.id = topic_key);
  if not known then
    insert into topic (id, name) values (topic_key, emit.topic);
  end if;

  if log_slot() = 0 then
    insert into log_0 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  else
    insert into log_2 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  end if;

  if written % 4096 = 0 then
    insert into tick (log_id) values (written);
  end if;
  -- A reader of every topic does not sleep on one that it has not met yet.
  if wake_mode() <> 'off' and (
    not known or wake_mode() = 'always' or somebody_sleeps(place.lock_class::integer, wake_key(topic_key))
  ) then
    perform pg_notify(place.channel, '');
  end if;
  return written;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.empty_slot(candidate integer, hold interval)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  last_xid bigint;
  needed boolean;
begin
  begin
    execute format('lock table log_%s in access exclusive mode', candidate);
  exception when lock_not_available then
    return false;
  end;
  -- By the index, topic by topic: the child may hold millions of rows.
  execute format(
    'select max(l.xid) from (select distinct t.id from topic as t) as t cross join lateral '
    || '(select l.xid from log_%s as l where l.topic = t.id order by l.xid desc limit 1) as l',
    candidate
  ) into last_xid;
  -- A reader needs what it has not seen: later transactions, and those that were open when it looked.
  execute format(
    'select exists (select from reader as r cross join (select distinct t.id from topic as t) as t '
    || 'where r.updated_at > now() - $1 and ('
    || 'exists (select from log_%1$s as l where l.topic = t.id and l.xid >= txid_snapshot_xmax(r.snapshot)) '
    || 'or exists (select from txid_snapshot_xip(r.snapshot) as x where exists ('
    || 'select from log_%1$s as l where l.topic = t.id and l.xid = x))))',
    candidate
  ) using hold into needed;
  if needed then
    return false;
  end if;
  execute format('truncate log_%s', candidate);
  if last_xid is not null then
    update installation set truncated_xid = greatest(truncated_xid, last_xid), truncated_snapshot = txid_current_snapshot();
  end if;
  update slot as s set opened_at = null, closed_at = null where s.slot = candidate;
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_headers(id uuid, version bigint, metadata jsonb)
 RETURNS json
 LANGUAGE sql
 STABLE
AS $function$
  select pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
    'eventId', $1, 'version', $2::text, 'correlationId', $3 ->> 'correlationId', 'causationId', $3 ->> 'causationId',
    'userId', $3 ->> 'userId', 'traceparent', $3 ->> 'traceparent'
  ))
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_id()
 RETURNS uuid
 LANGUAGE sql
AS $function$
  select (
    pg_catalog.lpad(pg_catalog.to_hex((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8), 12, '0')
    || '7' || pg_catalog.substr(h, 14, 3) || '8' || pg_catalog.substr(h, 18, 15)
  )::pg_catalog.uuid
  from pg_catalog.md5(pg_catalog.concat_ws(
    '/', pg_catalog.random(), pg_catalog.random(), pg_catalog.clock_timestamp(), pg_catalog.pg_backend_pid()
  )) as h
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_page(in_after bigint, in_settled bigint, in_types text[], in_categories text[], in_rows integer, in_bytes bigint, in_limit integer, OUT last_position bigint, OUT writers text[], OUT events text, OUT up_to bigint, OUT is_level boolean)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
declare
  settled bigint := in_settled;
  looked_at bigint;
  given bigint;
  bytes bigint;
  first_given bigint;
  last_given bigint;
  is_cut boolean;
  is_all constant boolean := in_types is null and in_categories is null;
  is_dense boolean;
begin
  if pg_is_in_recovery() or current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'TL013',
      message = case when pg_is_in_recovery() then 'a standby does not know the open writers of events'
        else 'events in their global order are read in READ COMMITTED, found ' || upper(current_setting('transaction_isolation')) end,
      hint = 'Read on the primary, outside of a transaction; leave default_transaction_isolation at read committed.';
  end if;
  select case when s.is_called then s.last_value else 0 end into last_position from event_position_seq as s;
  if in_settled - in_after < in_rows then
    writers := event_writers();
    if writers = '{}' then
      settled := last_position;
    end if;
  end if;

  -- How far: mostly all of what is settled, or a whole page of it. Sizes are looked at first, which reads no payload that is stored
  -- out of line.
  if is_all then
    select count(*), sum(b.bytes), min(b.position), max(b.position) into looked_at, bytes, first_given, up_to
    from (
      select e.position, pg_column_size(e.payload) as bytes
      from event as e
      where e.position > in_after and e.position <= least(settled, last_position)
      order by e.position
      limit in_rows
    ) as b;
    given := looked_at;
    last_given := up_to;
    is_cut := looked_at = in_rows;
  else
    -- Looks no further than the page needs: where most are wanted, that is far less than in_rows.
    select count(*) > in_limit, least(count(*), in_limit), sum(b.bytes) filter (where b.place <= in_limit), min(b.position),
      max(b.position) filter (where b.place <= in_limit)
    into is_cut, given, bytes, first_given, last_given
    from (
      select w.position, w.bytes, row_number() over (order by w.position) as place
      from (
        select e.position, case
            when (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
            then pg_column_size(e.payload)
          end as bytes
        from event as e
        where e.position > in_after and e.position <= least(settled, last_position)
        order by e.position
        limit in_rows
      ) as w
      where w.bytes is not null
      order by w.position
      limit in_limit + 1
    ) as b;
    if is_cut then
      up_to := last_given;
    else
      select count(*) = in_rows, max(b.position) into is_cut, up_to
      from (
        select e.position
        from event as e
        where e.position > in_after and e.position <= least(settled, last_position)
        order by e.position
        limit in_rows
      ) as b;
    end if;
  end if;
  if (not is_cut and settled < last_position) or given > in_limit or bytes >= in_bytes then
    -- As events follow each other without a gap, or below the mark, and as they fit.
    select is_cut or count(*) = in_rows or count(*) > count(*) filter (where b.fits), max(b.position) filter (where b.fits),
      count(b.bytes) filter (where b.fits), min(b.position) filter (where b.fits and b.bytes is not null),
      max(b.position) filter (where b.fits and b.bytes is not null)
    into is_cut, up_to, given, first_given, last_given
    from (
      select w.position, w.bytes, bool_and(w.follows) over o as is_settled, coalesce(sum(w.bytes) over p, 0) < in_bytes and count(w.bytes) over p < in_limit as fits
      from (
        select e.position,
          e.position <= settled or e.position = 1 + greatest(settled, lag(e.position, 1, in_after) over (order by e.position)) as follows,
          case
            when (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
            then pg_column_size(e.payload)
          end as bytes
        from event as e
        where e.position > in_after and e.position <= case when is_cut then up_to else last_position end
        order by e.position
        limit in_rows
      ) as w
      window o as (order by w.position rows unbounded preceding),
        p as (order by w.position rows between unbounded preceding and 1 preceding)
    ) as b
    where b.is_settled;
  end if;

  if given > 0 then
    is_dense := last_given - first_given + 1 = given;
    select concat(
      '[["', string_agg(e.id::text, '","'), '"],',
      case when is_dense then '"' || first_given || '"'
        else '["' || string_agg(case when not is_dense then e.position::text end, '","') || '"]' end,
      ',"', encode(string_agg(int8send(e.version), ''), 'hex'), '",', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(e.payload::text, ','), '],', json_agg(e.aggregate_type), ',', json_agg(e.aggregate_id), ']'
    )
    into events
    from (
      select *
      from event as e
      where e.position between first_given and last_given
        and (is_all or ((in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))))
      order by e.position
    ) as e;
  end if;
  up_to := case when is_cut then up_to else greatest(in_after, settled, up_to) end;
  is_level := not is_cut and up_to = greatest(in_after, last_position);
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_stream_page(in_type text, in_id text, in_from bigint, in_to bigint, in_as_of timestamp with time zone, in_backward boolean, in_rows integer, in_bytes bigint, OUT events text, OUT count integer, OUT edge bigint, OUT is_last boolean)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
#variable_conflict use_column
declare
  -- What the server moves out of line, or compresses and leaves (TOAST_TUPLE_THRESHOLD), is larger than this.
  small constant bigint := 2000;
  large bigint;
  total bigint;
  bytes bigint;
  low bigint;
  high bigint;
  is_dense boolean;
begin
  if not in_backward and in_rows * small <= in_bytes then
    select count(*), count(*) filter (where e.bytes > small), min(e.version), max(e.version), concat(
      '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'), '"],', min(e.version), ',', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(case when e.bytes <= small then e.payload::text end, ','), ']]'
    )
    into total, large, low, high, events
    from (
      select e.*, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit in_rows
    ) as e;
    if large = 0 and (total = 0 or high - low + 1 = total) then
      count := total;
      edge := high;
      is_last := total < in_rows;
      events := case when total > 0 then events end;
      return;
    end if;
    events := null;
  end if;

  if in_backward then
    select count(*), sum(b.bytes), min(b.version), max(b.version) into total, bytes, low, high
    from (
      select e.version, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version desc
      limit in_rows
    ) as b;
  else
    select count(*), sum(b.bytes), min(b.version), max(b.version) into total, bytes, low, high
    from (
      select e.version, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit in_rows
    ) as b;
  end if;
  is_last := total < in_rows;
  if bytes >= in_bytes then
    -- One event at least, and the one with which it is too much.
    select count(*), min(b.version), max(b.version), is_last and count(*) = total into total, low, high, is_last
    from (
      select e.version, sum(pg_column_size(e.payload)) over w as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between low and high
        and (in_as_of is null or e.created_at <= in_as_of)
      window w as (order by case when in_backward then -e.version else e.version end rows between unbounded preceding and 1 preceding)
    ) as b
    where coalesce(b.bytes, 0) < in_bytes;
  end if;

  count := total;
  edge := case when in_backward then low else high end;
  if total > 0 then
    is_dense := high - low + 1 = total;
    select concat(
      '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'), '"],',
      case when is_dense then low::text
        else '"' || encode(string_agg(case when not is_dense then int8send(e.version) end, ''), 'hex') || '"' end,
      ',', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(e.payload::text, ','), ']]'
    )
    into events
    from (
      select *
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between low and high
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
    ) as e;
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_streams(in_category text, in_after_type text, in_after_id text, in_rows integer)
 RETURNS TABLE(aggregate_type text, aggregate_id text, version bigint, first_at timestamp with time zone, last_at timestamp with time zone)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with recursive stream as (
    (
      select e.aggregate_type, e.aggregate_id, e.created_at, 1 as place
      from event as e
      -- (type, id, version) of the last stream's last event, or before the first of all.
      where (e.aggregate_type, e.aggregate_id, e.version) > (
          coalesce(in_after_type, in_category, ''), coalesce(in_after_id, ''),
          case when in_after_type is null then 0 else 9223372036854775807 end
        )
        and (in_category is null or e.aggregate_type = in_category)
      order by e.aggregate_type, e.aggregate_id, e.version
      limit 1
    )
    union all
    select n.aggregate_type, n.aggregate_id, n.created_at, s.place + 1
    from stream as s
    cross join lateral (
      select e.aggregate_type, e.aggregate_id, e.created_at
      from event as e
      where (e.aggregate_type, e.aggregate_id, e.version) > (s.aggregate_type, s.aggregate_id, 9223372036854775807)
        and (in_category is null or e.aggregate_type = in_category)
      order by e.aggregate_type, e.aggregate_id, e.version
      limit 1
    ) as n
    where s.place < in_rows
  )
  select s.aggregate_type, s.aggregate_id, l.version, s.created_at, l.created_at
  from stream as s
  cross join lateral (
    select e.version, e.created_at from event as e
    where e.aggregate_type = s.aggregate_type and e.aggregate_id = s.aggregate_id
    order by e.version desc
    limit 1
  ) as l
  order by s.place
$function$;

CREATE OR REPLACE FUNCTION trunkline.event_writers()
 RETURNS text[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  return (
    select coalesce(array_agg(distinct l.virtualtransaction), '{}')
    from pg_locks as l
    where l.locktype = 'relation'
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
      and l.relation = 'event'::regclass
      and l.mode = 'RowExclusiveLock'
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.find_table(table_name text)
 RETURNS regclass
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  parts text[];
  relation pg_class%rowtype;
  what text;
begin
  begin
    parts := parse_ident(table_name);
  exception when others then
    raise exception using errcode = 'TL005', message = format('%L is not a table name', table_name),
      hint = 'Write it as in SQL: orders, app.orders or "Odd Schema"."Odd Table".';
  end;
  if cardinality(parts) = 1 then
    parts := array['public'] || parts;
  elsif cardinality(parts) <> 2 then
    raise exception using errcode = 'TL005', message = format('%L is not a table name of one or two parts', table_name),
      hint = 'Write it as schema.table; other databases are out of reach.';
  end if;
  select c.* into relation
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = parts[1] and c.relname = parts[2];
  if not found then
    raise exception using errcode = 'TL001', message = format('table %I.%I does not exist', parts[1], parts[2]),
      hint = 'Check schema and spelling; a name without a schema is looked up in public, and names in double quotes keep their case.';
  end if;

  what := case
    when relation.relkind = 'v' then 'a view'
    when relation.relkind = 'm' then 'a materialized view'
    when relation.relkind = 'f' then 'a foreign table'
    when relation.relkind = 'S' then 'a sequence'
    when relation.relkind not in ('r', 'p') then 'not a table'
    when relation.relpersistence = 't' then 'a temporary table'
    when relation.relpersistence = 'u' then 'an unlogged table'
    when parts[1] in ('pg_catalog', 'information_schema', 'pg_toast') then 'a system table'
    when relation.relnamespace = (select relnamespace from pg_class where oid = 'log'::regclass) then 'a table of trunkline itself'
  end;
  if what is not null then
    raise exception using errcode = 'TL002', message = format('%I.%I is %s and cannot be captured', parts[1], parts[2], what),
      hint = case
        when relation.relkind in ('v', 'm') then 'Capture the tables it reads.'
        when relation.relkind = 'f' then 'Capture the table on the server where it lives.'
        when relation.relpersistence = 'u' then 'A crash empties it without firing a trigger: alter table … set logged.'
        else 'Capture an ordinary or partitioned table.'
      end;
  end if;
  return relation.oid::regclass;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.finish_capture(arguments text[], written bigint)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  wake text := coalesce(nullif(arguments[1], ''), wake_mode());
begin
  if currval('log_id_seq') % 4096 < written then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
  if wake = 'always' or (wake = 'elided' and somebody_sleeps(arguments[2]::integer, arguments[3]::integer)) then
    perform pg_notify(arguments[4], '');
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.first_xid(topics bigint[], low bigint, present txid_snapshot)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  start bigint := low;
  stop bigint;
  found_xid bigint;
begin
  foreach stop in array array(select x from txid_snapshot_xip(present) as x where x >= low order by x limit 16) || txid_snapshot_xmax(present)
  loop
    if start < stop then
      select min(f.xid) into found_xid
      from unnest(topics) as t (id)
      cross join lateral (
        (select l.xid from log_0 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
        union all
        (select l.xid from log_1 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
        union all
        (select l.xid from log_2 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
      ) as f;
      exit when found_xid is not null;
    end if;
    start := stop + 1;
  end loop;
  return found_xid;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.forget_subject(in_subject text, OUT is_new boolean, OUT snapshots bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  -- With one snapshot for all of the transaction a row that was written meanwhile would not be seen.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception using errcode = 'TL005',
      message = format('forget: the transaction is %s, expected read committed', current_setting('transaction_isolation')),
      hint = 'Begin it with: begin isolation level read committed.';
  end if;
  if coalesce(in_subject, '') = '' then
    raise exception using errcode = 'TL005', message = 'forget: the subject is empty', hint = 'Pass the id that events name.';
  end if;
  is_new := not exists (select from subject_key as k where k.subject = in_subject and k.secret is null);
  insert into subject_key as k (subject, forgotten_at)
  values (in_subject, clock_timestamp())
  on conflict (subject) do update set
    key_id = null,
    secret = null,
    master_key = null,
    forgotten_at = coalesce(k.forgotten_at, excluded.forgotten_at);
  delete from aggregate_snapshot as s where s.subjects <> '{}' and s.subjects @> array[in_subject];
  get diagnostics snapshots = row_count;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_aggregates(role name, may_forget boolean DEFAULT false)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  perform grant_events(role);
  execute format('grant execute on function aggregate_page, save_aggregate_snapshot, subject_keys, add_subject_keys to %I', role);
  if may_forget then
    execute format('grant execute on function forget_subject to %I', role);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_events(role name, may_append boolean DEFAULT true)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  -- Reading includes waiting for what is new, as a reader of the log does.
  perform grant_reader(role);
  if may_append then
    execute format('grant execute on function append(text, text, jsonb), append(text, bigint, jsonb), append_events, append_group to %I', role);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_inbox(role name)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  place constant name := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'inbox'::regclass);
begin
  if not exists (select from pg_roles as r where r.rolname = grant_inbox.role) then
    raise exception using errcode = 'TL005', message = format('role %I does not exist', role),
      hint = format('Create it first: create role %I login.', role);
  end if;
  execute format('grant usage on schema %I to %I', place, role);
  execute format('grant execute on function inbox_claim, inbox_forget, inbox_clean to %I', role);
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_projections(role name)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  perform grant_reader(role);
  execute format('grant insert, update, delete on projection, projection_build, projection_member, projection_partition, parked_event to %I', role);
  execute format(
    'grant execute on function is_projection_anchored, projection_begin, projection_begin_build, projection_beat, projection_enter, projection_fail, '
    || 'projection_failed, projection_gate, projection_give_back, projection_hung_on, projection_join, '
    || 'projection_keep_counting, projection_kept_names, projection_events, projection_park, '
    || 'projection_save, projection_swap_tables, projection_take, projection_writers to %I',
    role
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_reader(role name)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  place constant name := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'log'::regclass);
begin
  if not exists (select from pg_roles as r where r.rolname = grant_reader.role) then
    raise exception using errcode = 'TL005', message = format('role %I does not exist', role),
      hint = format('Create it first: create role %I login.', role);
  end if;
  execute format('grant usage on schema %I to %I', place, role);
  execute format(
    'grant select on installation, log, log_0, log_1, log_2, log_id_seq, event, event_position_seq, migration, routine, slot, tick, topic, '
    || 'relay, relay_member, relay_slot, relay_place, relay_turn, failed_delivery, outbox, '
    || 'projection, projection_build, projection_member, projection_partition, parked_event to %I',
    role
  );
  execute format('grant select, insert, update, delete on reader to %I', role);
  -- rotate() runs as its owner and does nothing that is not due: whoever reads keeps the log bounded.
  execute format(
    'grant execute on function decodable, event_page, event_stream_page, event_streams, event_writers, find_table, first_xid, is_covered, key_slot, log_identity, inbox_clean, log_page, log_slot, message_id, missing_triggers, next_tick, '
    || 'open_writers, rotate, standing_triggers, stray_triggers, table_fingerprint, table_tree, tick_xids, topic_rules, '
    || 'topic_signature, wake_key, wake_mode, wanted_triggers to %I',
    role
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.grant_relay(role name)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  perform grant_reader(role);
  execute format('grant select, insert, update, delete on relay, relay_member, relay_slot, relay_mark, failed_delivery to %I', role);
  execute format('grant select, insert on relay_checkpoint, relay_checkpoint_0, relay_checkpoint_1 to %I', role);
  execute format('grant usage on sequence relay_checkpoint_id_seq to %I', role);
  execute format(
    'grant execute on function inbox_claim, inbox_forget, log_beginning, relay_beat, relay_begin_attempts, relay_behind, '
    || 'relay_due, relay_join, relay_leave, relay_mark_attempts, relay_owns, relay_save, relay_settle_attempts, '
    || 'relay_store_failures, relay_take, relay_turn to %I',
    role
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.has_subject_keys(in_subjects text[])
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select in_subjects = '{}' or not exists (
    select from unnest(in_subjects) as s (subject)
    where not exists (select from subject_key as k where k.subject = s.subject and k.secret is not null)
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.inbox_claim(in_consumer text, in_message_id text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  -- In autocommit both are the moment at which the statement came in.
  if transaction_timestamp() = statement_timestamp() then
    raise exception using errcode = 'TL008', message = 'inbox: there is no transaction for the message to be handled in',
      hint = 'Begin one, claim the message, do what it asks for, commit: all on one connection.';
  end if;
  if coalesce(in_consumer, '') = '' or coalesce(in_message_id, '') = '' then
    raise exception using errcode = 'TL005', message = 'inbox: consumer and message id are texts that are not empty',
      hint = 'The message id is what the sender sends as id: the header of the broker, or webhook-id.';
  end if;
  insert into inbox (consumer, message_id) values (in_consumer, in_message_id) on conflict do nothing;
  return found;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.inbox_clean(step integer DEFAULT 1000)
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  forgotten integer;
begin
  with old as (
    select b.consumer, b.message_id from inbox as b
    where b.handled_at < now() - (select i.inbox_retention from installation as i)
    order by b.handled_at limit step
    for update skip locked
  )
  delete from inbox as b using old as o where b.consumer = o.consumer and b.message_id = o.message_id;
  get diagnostics forgotten = row_count;
  return forgotten;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.inbox_forget(in_consumer text, in_message_id text)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  delete from inbox as b where b.consumer = in_consumer and b.message_id = in_message_id and b.handled_at = transaction_timestamp();
$function$;

CREATE OR REPLACE FUNCTION trunkline.install_keys_function(spec trunkline.topic)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  own_name constant text := 'capture_keys_' || spec.id;
  home record;
begin
  if not exists (select from wanted_triggers(spec) as w where w.function_name = own_name) then
    perform drop_keys_function(spec.id);
    return;
  end if;
  select n.nspname, c.relowner::regrole as owner into strict home
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  where c.oid = 'log'::regclass;
  execute keys_function(spec, home.nspname);
  execute format('alter function %I.%I() owner to %s', home.nspname, own_name, home.owner);
  execute format('revoke execute on function %I.%I() from public', home.nspname, own_name);
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.is_covered(place text, log_id bigint, xid bigint)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select txid_visible_in_snapshot($3, split_part($1, '/', 3)::txid_snapshot) or (
    split_part($1, '/', 4) <> ''
    and txid_visible_in_snapshot($3, split_part($1, '/', 4)::txid_snapshot)
    and $2 <= split_part($1, '/', 5)::bigint
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.is_event_at(in_type text, in_id text, in_version bigint, in_event_id uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select exists (
    select from event as e
    where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version = in_version and e.id = in_event_id
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.is_projection_anchored(in_position bigint, in_anchor_position bigint, in_anchor_id uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select in_position <= (select case when s.is_called then s.last_value else 0 end from event_position_seq as s)
    and (in_anchor_id is null or exists (select from event as e where e.position = in_anchor_position and e.id = in_anchor_id))
$function$;

CREATE OR REPLACE FUNCTION trunkline.key_slot(key text, log_id bigint, slots integer)
 RETURNS smallint
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select (get_byte(sha256(convert_to(coalesce($1, $2::text), 'UTF8')), 0) % $3)::smallint
$function$;

CREATE OR REPLACE FUNCTION trunkline.keys_function(spec trunkline.topic, place name)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  fallback constant text := (select string_agg(format('null::text as %I', k), ', ') from unnest(spec.key_columns) as k);
  columns constant text := (select string_agg(format('%I', k), ', ') from unnest(spec.key_columns) as k);
  present constant text := (select string_agg(format('k.%I is not null', k), ' and ') from unnest(spec.key_columns) as k);
  side constant text := format(
    'select case when %s then row_to_json(k.*) end as image%%s from (select %s) as f cross join lateral (select %s from %%s) as k',
    present, fallback, columns
  );
  numbered constant text := ', row_number() over () as ordinal';
  one_sided constant text := format($$insert into %%s (topic, operation, %%s)
      select %s, case when s.image is null then 'x' else %%L end, s.image from (%%s) as s;$$, spec.id);
  paired constant text := format($$insert into %%s (topic, operation, old, new)
      select %s, case when o.image is null or n.image is null then 'x' else 'u' end,
        case when n.image is not null and o.image::text <> n.image::text then o.image end,
        case when o.image is not null then n.image end
      from (%s) as o full join (%s) as n using (ordinal)
      order by ordinal;$$, spec.id, format(side, numbered, 'trunkline_old'), format(side, numbered, 'trunkline_new'));
  writes constant text := (
    select string_agg(format($$
  %s tg_op = %L and log_slot() = %s then
    %s$$, case when o.place = 1 and s.slot = 0 then 'if' else 'elsif' end, o.operation, s.slot,
      case o.operation
        when 'INSERT' then format(one_sided, 'log_' || s.slot, 'new', 'i', format(side, '', 'trunkline_new'))
        when 'DELETE' then format(one_sided, 'log_' || s.slot, 'old', 'd', format(side, '', 'trunkline_old'))
        else format(paired, 'log_' || s.slot)
      end), '' order by o.place, s.slot)
    from unnest(array['INSERT', 'UPDATE', 'DELETE']) with ordinality as o (operation, place)
    cross join generate_series(0, 2) as s (slot)
  );
begin
  return format(
    'create or replace function %I.%I() returns trigger language plpgsql security definer '
    || 'set search_path = pg_catalog, %I, pg_temp set datestyle = ''ISO'' set intervalstyle = ''postgres'' '
    || 'set extra_float_digits = 1 as %L',
    place, 'capture_keys_' || spec.id, place,
    -- A key's column may have any name, also that of a variable.
    '#variable_conflict use_column
declare
  written bigint;
begin' || writes || $$
  end if;
  get diagnostics written = row_count;
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end$$
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.log_beginning()
 RETURNS txid_snapshot
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  -- Taken first: whoever is open now and has not been seen below is not below it.
  present constant txid_snapshot := txid_current_snapshot();
  lowest bigint;
begin
  select least(min(f.xid), txid_snapshot_xmin(present)) into lowest
  from (select distinct t.id from topic as t) as t
  cross join lateral (select l.xid from log as l where l.topic = t.id order by l.xid limit 1) as f;
  lowest := coalesce(lowest, txid_snapshot_xmin(present));
  if lowest <= (select i.truncated_xid from installation as i) then
    return '1:1:';
  end if;
  return format('%s:%s:', lowest, lowest)::txid_snapshot;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.log_identity()
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select concat_ws('-',
    (select system_identifier from pg_control_system()),
    -- pg_control_checkpoint() can show the old timeline for a minute after a promotion.
    left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (select d.oid from pg_database as d where d.datname = current_database()),
    (select i.id from installation as i)
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.log_page(base txid_snapshot, target txid_snapshot, after_id bigint, topics bigint[], row_limit integer, byte_limit bigint)
 RETURNS SETOF trunkline.log
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET jit TO 'off'
 SET max_parallel_workers_per_gather TO '0'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
#variable_conflict use_variable
declare
  -- Each statement below sees at least what the one before saw: rows are looked for after this.
  present constant txid_snapshot := txid_current_snapshot();
  chosen constant bigint[] := coalesce(topics, array(select distinct t.id from topic as t));
  base_open constant bigint[] := array(select x from txid_snapshot_xip(base) as x);
  low bigint := txid_snapshot_xmax(base);
  upper txid_snapshot := coalesce(target, present);
  upper_open bigint[];
  high bigint;
  singles bigint[];
  cuts bigint[];
  starts bigint[];
  ends bigint[];
  line log%rowtype;
  lines integer := 0;
  bytes bigint := 0;
  met bigint[] := '{}';
  complete boolean := true;
  page record;
begin
  low := first_xid(chosen, low, present);
  if target is null and low is not null then
    upper := coalesce(next_tick(low, present), present);
  end if;
  upper_open := array(select x from txid_snapshot_xip(upper) as x);
  high := txid_snapshot_xmax(upper);
  singles := array(select x from unnest(base_open) as x where x <> all (upper_open));

  if low < high then
    cuts := array(select x from unnest(upper_open) as x where x >= low order by x limit 16) || tick_xids(low, high);
    singles := singles || array(select distinct x from unnest(tick_xids(low, high)) as x where x <> all (upper_open));
    cuts := array(select distinct x from unnest(cuts) as x order by x);
    select array_agg(r.low), array_agg(r.high) into starts, ends
    from unnest(low || array(select x + 1 from unnest(cuts) as x), cuts || high) as r (low, high)
    where r.low < r.high;
    -- What the ranges still hold of transactions that are open in `upper`.
    upper_open := array(select x from unnest(upper_open) as x where x >= low and x <> all (cuts));
  end if;

  if starts is not null or singles <> '{}' then
    for line in
      select c.* from (
        select b.* from unnest(chosen) as t (id) cross join unnest(starts, ends) as r (low, high) cross join lateral (
          (select l.* from log_0 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
          union all
          (select l.* from log_1 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
          union all
          (select l.* from log_2 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
        ) as b
        union all
        select b.* from unnest(chosen) as t (id) cross join unnest(singles) as s (xid) cross join lateral (
          (select l.* from log_0 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
          union all
          (select l.* from log_1 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
          union all
          (select l.* from log_2 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
        ) as b
      ) as c
      order by c.id
      limit row_limit + 1
    loop
      bytes := bytes + coalesce(octet_length(line.old::text), 0) + coalesce(octet_length(line.new::text), 0)
        + coalesce(octet_length(line.payload::text), 0);
      if lines = row_limit or (lines > 0 and bytes > byte_limit) then
        complete := false;
        exit;
      end if;
      lines := lines + 1;
      if line.topic <> all (met) then
        met := met || line.topic;
      end if;
      return next line;
    end loop;
  end if;

  -- Asked after the rows were read: TRUNCATE is not transactional, but it waits for who has read, and
  -- who comes after it sees what it left in `installation`.
  select
    upper::text as target,
    complete,
    upper::text = present::text as level,
    -- Who was open at the last removal had written nothing to what was removed.
    txid_snapshot_xmax(base) > 1 and (i.truncated_xid >= txid_snapshot_xmax(base) or exists (
      select from unnest(base_open) as x where x <= i.truncated_xid and txid_visible_in_snapshot(x, i.truncated_snapshot)
    )) as lost,
    log_identity() as identity,
    (select json_object_agg(t.id, case when t.relation is null then '' else topic_signature(t.id) end)
      from (select distinct t.id, t.relation from topic as t where t.id = any (met)) as t) as topics
  into page
  from installation as i;
  line := null;
  line.payload := row_to_json(page);
  return next line;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.log_slot()
 RETURNS integer
 LANGUAGE sql
 STABLE
AS $function$select 0$function$;

CREATE OR REPLACE FUNCTION trunkline.message_id(log_id bigint, xid bigint, created_at timestamp with time zone)
 RETURNS uuid
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select (substr(h, 1, 12) || '8' || substr(h, 14, 3)
    || to_hex((('x' || substr(h, 17, 1))::bit(4)::integer & 3) | 8) || substr(h, 18, 15))::uuid
  from encode(sha256(convert_to(
    $1 || '/' || $2 || '/' || to_char($3 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'UTF8'
  )), 'hex') as h
$function$;

CREATE OR REPLACE FUNCTION trunkline.missing_triggers(spec trunkline.topic)
 RETURNS TABLE(relation oid, name text, event text, function_name text, arguments text[], stands boolean)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select w.relation, w.name, w.event, w.function_name, w.arguments, t.oid is not null
  from wanted_triggers(spec) as w
  left join pg_trigger as t on t.tgrelid = w.relation and t.tgname = w.name::name
  where t.oid is null
    or t.tgenabled not in ('O', 'A')
    or t.tgfoid is distinct from (select p.oid from pg_proc as p
      where p.proname = w.function_name and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass))
    -- Stored as text after text, each ended by a zero byte.
    or t.tgargs <> (select decode(string_agg(encode(convert_to(a.argument, getdatabaseencoding()), 'hex') || '00', '' order by a.place), 'hex')
      from unnest(w.arguments) with ordinality as a (argument, place))
$function$;

CREATE OR REPLACE FUNCTION trunkline.next_tick(low bigint, present txid_snapshot)
 RETURNS txid_snapshot
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select case
    when t.xid >= txid_snapshot_xmax(t.snapshot) then t.snapshot
    else concat_ws(':',
      least(t.xid, txid_snapshot_xmin(t.snapshot)),
      txid_snapshot_xmax(t.snapshot),
      (select string_agg(x::text, ',' order by x) from (select txid_snapshot_xip(t.snapshot) union select t.xid) as o (x))
    )::txid_snapshot
  end
  from tick as t
  where txid_snapshot_xmax(t.snapshot) > low and txid_visible_in_snapshot(t.xid, present)
  order by txid_snapshot_xmax(t.snapshot)
  limit 1
$function$;

CREATE OR REPLACE FUNCTION trunkline.open_writers()
 RETURNS text[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  return (
    select coalesce(array_agg(distinct l.virtualtransaction), '{}')
    from pg_locks as l
    where l.locktype = 'relation'
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
      and l.relation in ('log_0'::regclass, 'log_1'::regclass, 'log_2'::regclass)
      and l.mode = 'RowExclusiveLock'
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_beat(in_projection text, in_build bigint, in_owner uuid, in_lease_ms integer, OUT alive boolean, OUT state text, OUT share integer, OUT owned integer[], OUT vacant integer, OUT requested integer[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  others integer;
  before integer;
begin
  update projection_member as m set expires_at = clock_timestamp() + in_lease_ms * interval '1 millisecond'
  where m.projection = in_projection and m.build = in_build and m.owner = in_owner;
  alive := found;

  -- Skipping what is locked: a member that renews itself now is alive, and two that remove each other would wait for each other.
  with dead as (
    delete from projection_member as m where m.projection = in_projection and m.build = in_build and m.owner in (
      select e.owner from projection_member as e
      where e.projection = in_projection and e.build = in_build and e.owner <> in_owner and e.expires_at < clock_timestamp()
      for update skip locked
    ) returning m.owner
  )
  update projection_partition as p set owner = null, epoch = p.epoch + 1, updated_at = clock_timestamp()
  from dead as d where p.projection = in_projection and p.build = in_build and p.owner = d.owner;

  select b.state into state from projection_build as b where b.projection = in_projection and b.build = in_build;
  select count(*), count(*) filter (where m.owner < in_owner) into others, before
  from projection_member as m where m.projection = in_projection and m.build = in_build and m.owner <> in_owner;
  select
    count(*) / (others + 1) + case when before < count(*) % (others + 1) then 1 else 0 end,
    coalesce(array_agg(p.partition order by p.partition) filter (where p.owner = in_owner), '{}'),
    count(*) filter (where p.owner is null)
  into share, owned, vacant
  from projection_partition as p where p.projection = in_projection and p.build = in_build;
  -- One that waits behind another is retried when it is its turn.
  requested := array(
    select distinct e.partition from parked_event as e
    where e.projection = in_projection and e.build = in_build and e.request is not null and e.partition = any (owned)
      and (e.request = 'discard' or not exists (
        select from parked_event as b
        where b.projection = e.projection and b.build = e.build and b.partition = e.partition
          and b.aggregate_type = e.aggregate_type and b.aggregate_id = e.aggregate_id and b.position < e.position
      ))
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_begin(in_projection text, in_build bigint, in_partition integer, in_owner uuid, in_epoch bigint, in_timeout_ms integer)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  perform set_config('idle_in_transaction_session_timeout', (in_timeout_ms + 5000)::text, true),
    set_config('statement_timeout', in_timeout_ms::text, true),
    -- A COMMIT or ROLLBACK of a handler's would take it away: projection_save() misses it then.
    set_config('trunkline.batch', in_owner::text, true);
  perform projection_gate(in_projection);
  return exists (
    select from projection_partition as p
    where p.projection = in_projection and p.build = in_build and p.partition = in_partition and p.owner = in_owner and p.epoch = in_epoch
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_begin_build(in_projection text, in_version integer, in_mode text, in_state text, in_partitions integer, in_categories text[])
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  number bigint;
begin
  insert into projection as p (name) values (in_projection) on conflict (name) do nothing;
  update projection as p set builds = p.builds + 1 where p.name = in_projection returning p.builds into number;
  insert into projection_build (projection, build, version, mode, state, partitions, categories, replay_until, live_at)
  values (
    in_projection, number, in_version, in_mode, in_state, in_partitions, in_categories,
    (select case when s.is_called then s.last_value else 0 end from event_position_seq as s),
    case in_state when 'live' then now() end
  );
  insert into projection_partition (projection, build, partition)
  select in_projection, number, p from generate_series(0, in_partitions - 1) as p;
  return number;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_enter(in_projections text[], in_token text)
 RETURNS TABLE(projection text, version integer, mode text, replay_until bigint, is_snapshot boolean)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  keeps_snapshot constant boolean := current_setting('transaction_isolation') <> 'read committed';
begin
  perform set_config('trunkline.inline', in_token, true);
  -- In order: two writers never wait for each other.
  perform projection_gate(n.name) from (select u.name from unnest(in_projections) as u (name) order by u.name) as n;
  if keeps_snapshot then
    perform from projection_build as b where b.projection = any (in_projections) for share;
  end if;
  return query
    select n.name, b.version, b.mode, b.replay_until, keeps_snapshot
    from unnest(in_projections) as n (name)
    left join projection_build as b on b.projection = n.name and b.state = 'live';
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_events(in_after bigint, in_until bigint, in_categories text[], in_limit integer)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select concat(
    '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'),
    '"],"', encode(string_agg(int8send(e.version), ''), 'hex'), '",', json_agg(e.type),
    ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
    '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
    '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
    '],[', string_agg(e.payload::text, ','), '],', json_agg(e.aggregate_type), ',', json_agg(e.aggregate_id), ']'
  )
  from (
    select * from event as e
    where e.position > in_after and (in_until is null or e.position <= in_until)
      and (in_categories is null or e.aggregate_type = any (in_categories))
    order by e.position
    limit in_limit
  ) as e
  having count(*) > 0
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_fail(reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  raise exception using errcode = 'TL014', message = reason;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_failed(in_projection text, in_build bigint, in_partition integer, in_owner uuid, in_epoch bigint, in_position bigint, in_stream text, in_code text, in_error text, in_counts boolean)
 RETURNS bigint
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  update projection_partition as p set
    attempts = case when p.failing_position is not distinct from in_position then p.attempts else 0 end + in_counts::integer,
    failing_since = case when p.failing_position is not distinct from in_position then p.failing_since else clock_timestamp() end,
    failing_position = in_position, failing_stream = in_stream, error_code = in_code, error = in_error, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition and p.owner = in_owner and p.epoch = in_epoch
  returning p.attempts
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_gate(in_projection text, is_alone boolean DEFAULT false)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  key constant bigint := hashtextextended('projection ' || in_projection, 'projection'::regclass::oid::bigint);
begin
  if is_alone then
    perform pg_advisory_xact_lock(key);
  else
    perform pg_advisory_xact_lock_shared(key);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_give_back(in_projection text, in_build bigint, in_owner uuid, in_partitions integer[], in_leaves boolean)
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  update projection_partition as p set owner = null, epoch = p.epoch + 1, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and p.owner = in_owner and (in_leaves or p.partition = any (in_partitions));
  delete from projection_member as m
  where in_leaves and m.projection = in_projection and m.build = in_build and m.owner = in_owner;
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_hung_on(in_tables text[])
 RETURNS text[]
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with t as (
    select to_regclass(u.name)::oid as id, u.name from unnest(in_tables) as u (name) where to_regclass(u.name) is not null
  )
  select array(
    select w.what from (
      select 'view ' || r.ev_class::regclass::text || ' on ' || t.name as what
      from t join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.id and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite as r on r.oid = d.objid and r.ev_class <> t.id
      union
      select 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass::text || ' to ' || t.name
      from t join pg_constraint as k on k.contype = 'f' and k.confrelid = t.id
      where k.conrelid not in (select t.id from t)
      union
      select 'rule ' || r.rulename || ' on ' || t.name from t join pg_rewrite as r on r.ev_class = t.id
      union
      select 'publication ' || p.pubname || ' of ' || t.name
      from t join pg_publication_rel as r on r.prrelid = t.id join pg_publication as p on p.oid = r.prpubid
      union
      select 'trigger ' || g.tgname || ' on ' || t.name from t join pg_trigger as g on g.tgrelid = t.id and not g.tgisinternal
      union
      select 'policy ' || p.polname || ' on ' || t.name from t join pg_policy as p on p.polrelid = t.id
      union
      select 'table ' || i.inhrelid::regclass::text || ' inherits ' || t.name
      from t join pg_class as c on c.oid = t.id and c.relkind = 'r' join pg_inherits as i on i.inhparent = t.id
    ) as w
    order by w.what
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_join(in_projection text, in_build bigint, in_owner uuid, in_process text, in_lease_ms integer)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  perform from projection_build as b where b.projection = in_projection and b.build = in_build for key share;
  if not found then
    return false;
  end if;
  insert into projection_member (projection, build, owner, process, expires_at)
  values (in_projection, in_build, in_owner, in_process, clock_timestamp() + in_lease_ms * interval '1 millisecond');
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_keep_counting(in_names text[], in_built text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  counter record;
begin
  for counter in
    select s.live, s.own, p.built, t.attname, q.seqmax,
      -- A table that was made like the live one takes the numbers of a serial column from its sequence.
      exists (
        select from pg_attrdef as f join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
        where f.adrelid = n.attrelid and f.adnum = n.attnum and d.refclassid = 'pg_class'::regclass and d.refobjid = s.live
      ) as is_shared
    from unnest(in_names, in_built) as p (name, built)
    join pg_attribute as t on t.attrelid = to_regclass(p.name) and t.attnum > 0 and not t.attisdropped
    join pg_attribute as n on n.attrelid = to_regclass(p.built) and n.attname = t.attname and not n.attisdropped
    cross join lateral (
      select pg_get_serial_sequence(p.name, t.attname)::regclass as live, pg_get_serial_sequence(p.built, t.attname)::regclass as own
    ) as s
    left join pg_sequence as q on q.seqrelid = s.own and q.seqincrement > 0
    where s.live is not null
  loop
    if counter.is_shared then
      execute format('alter sequence %s owned by %s.%I', counter.live, counter.built, counter.attname);
    elsif
      pg_sequence_last_value(counter.live) > coalesce(pg_sequence_last_value(counter.own), 0)
      and pg_sequence_last_value(counter.live) <= counter.seqmax
    then
      perform setval(counter.own, pg_sequence_last_value(counter.live));
    end if;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_kept_names(in_names text[], in_built text[])
 RETURNS jsonb
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with place as (
    select p.number, s.side, to_regclass(s.name) as id, s.name
    from unnest(in_names, in_built) with ordinality as p (name, built, number)
    cross join lateral (values ('live', p.name), ('built', p.built)) as s (side, name)
  ), part as (
    select p.number, p.side, c.oid as id, c.relname as name, l.likeness,
      row_number() over (partition by p.number, p.side, l.likeness order by c.relname) as nth
    from place as p
    join pg_index as x on x.indrelid = p.id
    join pg_class as c on c.oid = x.indexrelid
    cross join lateral (
      select concat_ws(' ', x.indisunique, x.indisprimary, x.indisexclusion, regexp_replace(pg_get_indexdef(c.oid), '^.*? USING ', '')) as likeness
    ) as l
    union all
    select p.number, p.side, c.oid, c.relname, 'sequence of ' || t.attname, 1
    from place as p
    join pg_attribute as t on t.attrelid = p.id and t.attnum > 0 and not t.attisdropped
    join pg_class as c on c.oid = pg_get_serial_sequence(p.name, t.attname)::regclass
  )
  select coalesce(jsonb_object_agg(b.id::text, l.name), '{}')
  from part as l join part as b using (number, likeness, nth)
  where l.side = 'live' and b.side = 'built'
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_park(in_projection text, in_build bigint, in_partition integer, in_events json)
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  insert into parked_event (
    projection, build, partition, aggregate_type, aggregate_id, position, event_id, version, type,
    attempts, error_code, error, first_attempt_at, last_attempt_at
  )
  select in_projection, in_build, in_partition, e.type, e.id, e.position, e.event_id, e.version, e.event_type,
    coalesce(e.attempts, 0), e.code, e.error, e.first_at, case when e.attempts > 0 then clock_timestamp() end
  from json_to_recordset(in_events) as e (
    type text, id text, position bigint, event_id uuid, version bigint, event_type text,
    attempts bigint, code text, error text, first_at timestamptz
  )
  order by e.position
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_save(in_projection text, in_build bigint, in_partition integer, in_owner uuid, in_epoch bigint, in_from bigint, in_to bigint)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  held projection_partition%rowtype;
begin
  if coalesce(current_setting('trunkline.batch', true), '') <> in_owner::text then
    return 'ended';
  end if;
  select * into held from projection_partition as p
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition
  for no key update;
  if not found or held.owner is distinct from in_owner or held.epoch <> in_epoch or held.position <> in_from then
    return 'lost';
  end if;
  if not is_projection_anchored(held.position, held.anchor_position, held.anchor_id) then
    return 'other_history';
  end if;
  -- Where it does not move, an event that stops it has not gone through: parked ones were served meanwhile.
  if in_to = in_from and (held.error is null or held.failing_position > in_to) then
    return 'saved';
  end if;
  update projection_partition as p
  set position = in_to, anchor_position = a.position, anchor_id = a.id,
    failing_position = null, failing_stream = null, attempts = 0, error_code = null, error = null, failing_since = null,
    updated_at = clock_timestamp()
  from (select) as one left join lateral (
    select e.position, e.id from event as e where e.position <= in_to order by e.position desc limit 1
  ) as a on true
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition;
  return 'saved';
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_swap_tables(in_names text[], in_built text[], in_old text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  present constant text[] := array(select o from unnest(in_old || in_names) as o where to_regclass(o) is not null group by o order by o);
  right_ record;
  pair record;
  part record;
  -- Names to be kept of the live tables' indexes and sequences, by oid of those that take their place.
  kept jsonb;
begin
  if present <> '{}' then
    execute 'lock table ' || array_to_string(present, ', ') || ' in access exclusive mode';
  end if;
  for right_ in
    select p.built as target, a.privilege_type, a.is_grantable, a.grantee, '' as kind, '' as part
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    cross join lateral aclexplode(c.relacl) as a
    where a.grantee <> c.relowner
    union all
    select p.built, a.privilege_type, a.is_grantable, a.grantee, '', format(' (%I)', t.attname)
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    join pg_attribute as t on t.attrelid = c.oid and not t.attisdropped
    cross join lateral aclexplode(t.attacl) as a
    where exists (select from pg_attribute as n where n.attrelid = to_regclass(p.built) and n.attname = t.attname)
    union all
    -- Sequences of serial columns.
    select n.sequence, a.privilege_type, a.is_grantable, a.grantee, 'sequence ', ''
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    join pg_attribute as t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
    join pg_class as q on q.oid = pg_get_serial_sequence(p.name, t.attname)::regclass
    cross join lateral aclexplode(q.relacl) as a
    cross join lateral (
      select pg_get_serial_sequence(p.built, m.attname) as sequence from pg_attribute as m
      where m.attrelid = to_regclass(p.built) and m.attname = t.attname and not m.attisdropped
    ) as n
    where a.grantee <> q.relowner and n.sequence is not null
  loop
    execute format(
      'grant %s%s on %s%s to %s%s',
      right_.privilege_type, right_.part, right_.kind, right_.target,
      case when right_.grantee = 0 then 'public' else right_.grantee::regrole::text end,
      case when right_.is_grantable then ' with grant option' else '' end
    );
  end loop;
  perform projection_keep_counting(in_names, in_built);
  kept := projection_kept_names(in_names, in_built);
  if present <> '{}' then
    execute 'drop table ' || array_to_string(present, ', ');
  end if;
  for pair in
    select c.oid, c.relname as built_name, p.built, (parse_ident(p.name))[cardinality(parse_ident(p.name))] as name, c.relnamespace
    from unnest(in_names, in_built) as p (name, built) join pg_class as c on c.oid = to_regclass(p.built)
  loop
    execute format('alter table %s rename to %I', pair.built, pair.name);
    -- Names that are kept, or were made of the table's and are so again, where they are free.
    for part in
      select i.relname, n.nspname, case i.relkind when 'S' then 'sequence' else 'index' end as kind, w.name
      from pg_class as i join pg_namespace as n on n.oid = i.relnamespace
      cross join lateral (
        select coalesce(kept ->> i.oid::text, case when starts_with(i.relname, pair.built_name) then pair.name || substr(i.relname, 1 + length(pair.built_name)) end)
      ) as w (name)
      where w.name <> i.relname and octet_length(w.name) < 64 and (
        i.oid in (select x.indexrelid from pg_index as x where x.indrelid = pair.oid)
        or i.relkind = 'S' and exists (
          select from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = i.oid and d.refobjid = pair.oid and d.deptype in ('a', 'i')
        )
      )
      order by kept ->> i.oid::text nulls last
    loop
      if to_regclass(format('%I.%I', part.nspname, part.name)) is null then
        execute format('alter %s %I.%I rename to %I', part.kind, part.nspname, part.relname, part.name);
      end if;
    end loop;
    for part in
      select k.conname, pair.name || substr(k.conname, 1 + length(pair.built_name)) as name
      from pg_constraint as k where k.conrelid = pair.oid and k.conindid = 0 and starts_with(k.conname, pair.built_name)
    loop
      if octet_length(part.name) < 64 and not exists (select from pg_constraint as k where k.conrelid = pair.oid and k.conname = part.name) then
        execute format('alter table %s rename constraint %I to %I', pair.oid::regclass, part.conname, part.name);
      end if;
    end loop;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_take(in_projection text, in_build bigint, in_owner uuid, in_count integer)
 RETURNS SETOF trunkline.projection_partition
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with member as (
    select from projection_member as m
    where m.projection = in_projection and m.build = in_build and m.owner = in_owner and m.expires_at > clock_timestamp()
    for share
  )
  update projection_partition as p set owner = in_owner, epoch = p.epoch + 1, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and exists (select from member) and p.partition in (
    select v.partition from projection_partition as v
    where v.projection = in_projection and v.build = in_build and v.owner is null
    order by v.partition limit in_count for update skip locked
  )
  returning p.*
$function$;

CREATE OR REPLACE FUNCTION trunkline.projection_writers(in_projection text)
 RETURNS text[]
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select array(
    select w.writer from unnest(event_writers()) as w (writer)
    cross join (select hashtextextended('projection ' || in_projection, 'projection'::regclass::oid::bigint) as key) as k
    where not exists (
      select from pg_locks as l
      where l.virtualtransaction = w.writer and l.locktype = 'advisory' and not l.granted and l.objsubid = 1
        and l.classid::bigint = (k.key >> 32) & 4294967295 and l.objid::bigint = k.key & 4294967295
    )
  )
$function$;

CREATE OR REPLACE FUNCTION trunkline.publish_event()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  written bigint;
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  else
    insert into log_2 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  end if;
  get diagnostics written = row_count;
  if written = 0 then
    return null;
  end if;
  if currval('log_id_seq') % 4096 < written then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
  if wake_mode() <> 'off' and (wake_mode() = 'always' or exists (
    select from (select distinct n.aggregate_type from trunkline_new as n where n.aggregate_type = any (tg_argv)) as t
    where somebody_sleeps(1953658222, wake_key(hashtextextended(t.aggregate_type, 0)))
  )) then
    perform pg_notify((select i.channel from installation as i), '');
  end if;
  return null;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.publish_events(VARIADIC categories text[] DEFAULT '{}'::text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  wanted constant text[] := coalesce((select array_agg(distinct c order by c) from unnest(categories) as c), '{}');
  wrong text;
  present text[];
  target constant text := (select format('%I.event', n.nspname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'event'::regclass);
begin
  select format('%L', c) into wrong from unnest(categories) as c where c is null or c = '' or c like '%-%' limit 1;
  if wrong is not null then
    raise exception using errcode = 'TL005', message = format('publish_events: %s is no type of aggregates', wrong),
      hint = 'Name the part of the streams before the first ''-'', for example: select publish_events(''order'').';
  end if;
  -- Two at once: one after the other.
  select i.published into present from installation as i for update;
  if present = wanted then
    return;
  end if;
  update installation as i set published = wanted;
  if present <> '{}' then
    execute format('drop trigger event_publish on %s', target);
  end if;
  if wanted = '{}' then
    return;
  end if;
  insert into topic (id, name)
  select hashtextextended(w, 0), w from unnest(wanted) as w
  where not exists (select from topic as t where t.id = hashtextextended(w, 0));
  execute format(
    'create trigger event_publish after insert on %s referencing new table as trunkline_new for each statement execute function %s.publish_event(%s)',
    target, split_part(target, '.event', 1), (select string_agg(quote_literal(w), ', ') from unnest(wanted) as w)
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.refuse_event_change()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  raise exception using errcode = 'TL011', message = format('%s of %I.event is refused: events are not changed', tg_op, tg_table_schema),
    hint = 'Append an event that corrects the earlier one. To forget a person''s data, encrypt it and delete the key (docs/events.md).';
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_beat(in_relay text, in_owner uuid, in_lease_ms integer, moves boolean, OUT alive boolean, OUT share integer, OUT owned smallint[], OUT vacant integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  update relay_member as m set expires_at = clock_timestamp() + in_lease_ms * interval '1 millisecond'
  where m.relay = in_relay and m.owner = in_owner;
  alive := found;

  -- Skipping what is locked: a member that renews itself now is alive, and two that remove each other would wait for each other.
  with dead as (
    delete from relay_member as m where m.relay = in_relay and m.owner in (
      select e.owner from relay_member as e
      where e.relay = in_relay and e.owner <> in_owner and e.expires_at < clock_timestamp()
      for update skip locked
    ) returning m.owner
  )
  update relay_slot as s set owner = null, epoch = s.epoch + 1, suspect = true
  from dead as d where s.relay = in_relay and s.owner = d.owner;

  select
    r.slots / greatest(count(m.owner), 1) + case when count(m.owner) filter (where m.owner < in_owner) < r.slots % greatest(count(m.owner), 1) then 1 else 0 end
  into share
  from relay as r left join relay_member as m on m.relay = r.name
  where r.name = in_relay
  group by r.slots;

  select
    coalesce(array_agg(s.slot order by s.slot) filter (where s.owner = in_owner), '{}'),
    count(*) filter (where s.owner is null)
  into owned, vacant
  from relay_slot as s where s.relay = in_relay;

  -- Snapshots of one server are ordered: the later one has the higher xmax, or fewer transactions in progress below it.
  update reader as r set position = l.position, snapshot = l.snapshot, updated_at = now()
  from (
    select s.position, s.snapshot from relay_place as s where s.relay = in_relay
    order by txid_snapshot_xmax(s.snapshot), (select count(*) from txid_snapshot_xip(s.snapshot)) desc, s.slot
    limit 1
  ) as l
  where r.name = 'relay:' || in_relay
    and (r.position <> l.position or (moves and r.updated_at < now() - interval '10 seconds'));

  -- At the end: it may lock what others would wait for.
  perform relay_turn();
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_begin_attempts(in_relay text, in_owner uuid, first_id bigint, behind integer, in_delay_ms bigint)
 RETURNS TABLE(id bigint, attempts integer, change text, since_ms bigint)
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with head as (
    select d.id, d.topic, d.key, d.slot from failed_delivery as d where d.id = first_id and d.relay = in_relay and d.state = 'retry'
  ), chosen as (
    select f.id from head as h
    cross join lateral (
      select d.id, bool_or(d.state <> 'retry') over (order by d.id) as is_held, sum(d.bytes) over (order by d.id) as bytes
      from failed_delivery as d
      where d.relay = in_relay and d.slot = h.slot and d.topic = h.topic and hashtextextended(d.key, 0) = hashtextextended(h.key, 0) and d.key = h.key and (d.state = 'retry' or d.holds)
      order by d.id limit behind + 1
    ) as f
    where not f.is_held and f.bytes <= 4194304
    union
    select h.id from head as h
  ), begun as (
    update failed_delivery as d set
      attempts = d.attempts + 1,
      first_attempt_at = coalesce(d.first_attempt_at, clock_timestamp()),
      last_attempt_at = clock_timestamp(),
      retry_at = clock_timestamp() + in_delay_ms * interval '1 millisecond'
    from chosen as c
    where d.id = c.id
      and exists (select from relay_slot as s where s.relay = d.relay and s.slot = d.slot and s.owner = in_owner)
    returning d.id, d.attempts::integer as attempts, d.change::text as change,
      (extract(epoch from clock_timestamp() - d.first_attempt_at) * 1000)::bigint as since_ms
  )
  select * from begun as b order by b.id
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_behind(in_relay text, target txid_snapshot, OUT slots integer, OUT retries integer)
 RETURNS record
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select
    (select count(*)::integer from relay_place as s where s.relay = in_relay and (
      txid_snapshot_xmax(s.snapshot) < txid_snapshot_xmax(target)
      or txid_snapshot_xmax(s.snapshot) = txid_snapshot_xmax(target)
        and (select count(*) from txid_snapshot_xip(s.snapshot)) > (select count(*) from txid_snapshot_xip(target))
    )),
    (select count(*)::integer from failed_delivery as d where d.relay = in_relay and d.state in ('retry', 'redrive') and not exists (
      select from failed_delivery as h
      where h.relay = in_relay and h.slot = d.slot and h.topic = d.topic and hashtextextended(h.key, 0) = hashtextextended(d.key, 0) and h.key = d.key and h.id < d.id and h.holds and h.state = 'dead'
    ))
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_due(in_relay text, in_owner uuid, count integer, thorough boolean)
 RETURNS TABLE(id bigint, slot smallint, topic text, key text, log_id bigint, attempts integer, due_ms bigint)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  -- So many wait for their first attempt, and so many in all, before more are taken up.
  fresh_max constant integer := 500;
  retry_max constant integer := 1000;
  -- What waits behind another one has the time infinity; as a bound the index takes it, as a condition of two parts it does not.
  last constant timestamptz := case when thorough then 'infinity' else now() + interval '1000 years' end;
  own constant smallint[] := array(select s.slot from relay_slot as s where s.relay = in_relay and s.owner = in_owner);
begin
  if exists (select from unnest(own) as o (slot) join failed_delivery as d on d.relay = in_relay and d.slot = o.slot and d.state = 'redrive')
    and (
      select count(*) < retry_max and count(*) filter (where w.attempts = 0 and w.retry_at < 'infinity') < fresh_max
      from (select d.attempts, d.retry_at from failed_delivery as d where d.relay = in_relay and d.state = 'retry' limit retry_max) as w
    )
  then
    with chosen as (
      select r.id, row_number() over (partition by r.slot, r.topic, r.key order by r.id) as place
      from unnest(own) as o (slot)
      cross join lateral (
        select d.id, d.slot, d.topic, d.key from failed_delivery as d
        where d.relay = in_relay and d.slot = o.slot and d.state = 'redrive'
        order by d.id limit fresh_max / cardinality(own) + 1
      ) as r
    )
    update failed_delivery as d set state = 'retry', holds = false, retry_at = case
      when d.key is null or c.place = 1 and not exists (
        select from failed_delivery as f
        where f.relay = in_relay and f.slot = d.slot and f.topic = d.topic and hashtextextended(f.key, 0) = hashtextextended(d.key, 0)
          and f.key = d.key and f.id < d.id and (f.state = 'retry' or f.holds)
      ) then clock_timestamp()
      else 'infinity'
    end
    from chosen as c where d.id = c.id and d.state = 'redrive';
  end if;

  return query
    select
      d.id, d.slot, d.topic, d.key, d.log_id, d.attempts::integer,
      case when d.retry_at = 'infinity' then 0 else ceil(extract(epoch from d.retry_at - clock_timestamp()) * 1000)::bigint end
    from failed_delivery as d
    where d.relay = in_relay and d.state = 'retry' and d.retry_at <= last and d.slot = any (own)
      and not exists (
        select from failed_delivery as f
        where f.relay = in_relay and f.slot = d.slot and f.topic = d.topic and hashtextextended(f.key, 0) = hashtextextended(d.key, 0)
          and f.key = d.key and f.id < d.id and (f.state = 'retry' or f.holds)
      )
    order by d.retry_at, d.id
    limit count;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_join(in_relay text, in_owner uuid, in_process text, in_lease_ms integer, in_slots integer, in_topics bigint[], in_sink text, start text)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  place constant text := case start
    when 'beginning' then concat_ws('/', '1', log_identity(), log_beginning()::text)
    when 'now' then concat_ws('/', '1', log_identity(), txid_current_snapshot()::text)
    else start
  end;
  seen constant txid_snapshot := split_part(place, '/', 3)::txid_snapshot;
  sorted constant bigint[] := (select array_agg(x order by x) from unnest(in_topics) as x);
  previous record;
  slot_count integer;
  made_slots smallint[];
begin
  -- One that delivers other topics would save places past events of the topics that only this one has.
  select r.topics into previous from relay as r where r.name = in_relay for update;
  if found and previous.topics is distinct from sorted and exists (
    select from relay_member as m where m.relay = in_relay and m.expires_at > clock_timestamp()
  ) then
    raise exception using errcode = 'TL009', message = format('processes of relay %L run that deliver other topics', in_relay),
      hint = 'Stop them first, then start this one; or give it another name.';
  end if;
  insert into relay as r (name, slots, topics, sink) values (in_relay, in_slots, sorted, in_sink)
  on conflict (name) do update set topics = excluded.topics, sink = excluded.sink
    where (r.topics, r.sink) is distinct from (excluded.topics, excluded.sink);
  select r.slots into strict slot_count from relay as r where r.name = in_relay;
  with made as (
    insert into relay_slot as s (relay, slot)
    select in_relay, n from generate_series(0, slot_count - 1) as n
    on conflict (relay, slot) do nothing
    returning s.slot
  )
  select array_agg(m.slot) into made_slots from made as m;
  if (select t.side from relay_turn as t) = 0 then
    insert into relay_checkpoint_0 (relay, slot, position, snapshot) select in_relay, n, place, seen from unnest(made_slots) as n;
  else
    insert into relay_checkpoint_1 (relay, slot, position, snapshot) select in_relay, n, place, seen from unnest(made_slots) as n;
  end if;
  insert into reader (name, position, snapshot) values ('relay:' || in_relay, place, seen)
  on conflict (name) do nothing;
  insert into relay_member (relay, owner, process, expires_at)
  values (in_relay, in_owner, in_process, clock_timestamp() + in_lease_ms * interval '1 millisecond');
  return slot_count;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_leave(in_relay text, in_owner uuid)
 RETURNS void
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  update relay_slot as s set owner = null, epoch = s.epoch + 1, suspect = true
  where s.relay = in_relay and s.owner = in_owner;
  delete from relay_member as m where m.relay = in_relay and m.owner = in_owner;
  update reader as r set position = l.position, snapshot = l.snapshot, updated_at = now()
  from (
    select s.position, s.snapshot from relay_place as s where s.relay = in_relay
    order by txid_snapshot_xmax(s.snapshot), (select count(*) from txid_snapshot_xip(s.snapshot)) desc, s.slot
    limit 1
  ) as l
  where r.name = 'relay:' || in_relay and r.position <> l.position;
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_mark_attempts(in_relay text, in_owner uuid, in_slots smallint[], in_ids bigint[], in_xids bigint[], is_alone boolean)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  if not relay_owns(in_relay, in_owner, in_slots) then
    return false;
  end if;
  insert into relay_mark as m (relay, slot, log_id, xid, alone)
  select in_relay, v.slot, v.log_id, v.xid, is_alone
  from unnest(in_slots, in_ids, in_xids) as v (slot, log_id, xid)
  on conflict (relay, log_id, xid) do update
    set attempts = m.attempts + 1, alone = excluded.alone, started_at = excluded.started_at;
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_owns(in_relay text, in_owner uuid, in_slots smallint[])
 RETURNS boolean
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select count(*) = (select count(distinct n) from unnest(in_slots) as n)
  from (
    select from relay_slot as s
    where s.relay = in_relay and s.slot = any (in_slots) and s.owner = in_owner
    order by s.slot for share
  ) as owned
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_save(in_relay text, in_owner uuid, in_slots smallint[], positions text[], suspects boolean[], finished bigint[], gives_back boolean)
 RETURNS smallint[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  -- They stay this process's own until the end of the transaction, so that the ids below are in the order of the owners.
  own constant smallint[] := array(
    select s.slot from relay_slot as s
    where s.relay = in_relay and s.slot = any (in_slots) and s.owner = in_owner
    order by s.slot for no key update
  );
begin
  if (select t.side from relay_turn as t) = 0 then
    insert into relay_checkpoint_0 (relay, slot, position, snapshot)
    select in_relay, v.slot, v.position, split_part(v.position, '/', 3)::txid_snapshot
    from unnest(in_slots, positions) as v (slot, position) where v.slot = any (own);
  else
    insert into relay_checkpoint_1 (relay, slot, position, snapshot)
    select in_relay, v.slot, v.position, split_part(v.position, '/', 3)::txid_snapshot
    from unnest(in_slots, positions) as v (slot, position) where v.slot = any (own);
  end if;
  update relay_slot as s set
    suspect = v.suspect,
    owner = case when gives_back then null else s.owner end,
    epoch = s.epoch + gives_back::integer
  from unnest(in_slots, suspects) as v (slot, suspect)
  where s.relay = in_relay and s.slot = v.slot and v.slot = any (own) and (gives_back or s.suspect <> v.suspect);
  delete from relay_mark as m using unnest(in_slots, suspects) as v (slot, suspect)
  where m.relay = in_relay and m.slot = v.slot and v.slot = any (own) and (not v.suspect or m.log_id = any (finished));
  delete from failed_delivery as d using unnest(in_slots, positions) as v (slot, position)
  where d.relay = in_relay and d.slot = v.slot and v.slot = any (own) and d.state = 'done' and is_covered(v.position, d.log_id, d.xid);
  return own;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_settle_attempts(in_relay text, in_owner uuid, done bigint[], failures json, in_slot smallint, in_topic text, in_key text)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  delete from failed_delivery as d using relay_place as s
  where d.relay = in_relay and d.id = any (done) and s.relay = d.relay and s.slot = d.slot and is_covered(s.position, d.log_id, d.xid);
  update failed_delivery as d set state = 'done', holds = false where d.relay = in_relay and d.id = any (done);
  update failed_delivery as d set
    state = f.state, holds = f.holds, attempts = f.attempts,
    error_code = coalesce(f.error_code, d.error_code), error_message = coalesce(f.error_message, d.error_message),
    retry_at = clock_timestamp() + f.delay_ms * interval '1 millisecond',
    dead_at = case when f.state = 'dead' then clock_timestamp() end
  from json_to_recordset(failures) as f (
    id bigint, state text, holds boolean, attempts integer, delay_ms bigint, error_code text, error_message text
  )
  where d.relay = in_relay and d.id = f.id
    and exists (select from relay_slot as s where s.relay = d.relay and s.slot = d.slot and s.owner = in_owner for share);
  -- The next one of the key has its turn.
  update failed_delivery as d set retry_at = clock_timestamp()
  where d.state = 'retry' and d.retry_at = 'infinity' and d.id = (
    select f.id from failed_delivery as f
    where f.relay = in_relay and f.slot = in_slot and f.topic = in_topic and hashtextextended(f.key, 0) = hashtextextended(in_key, 0)
      and f.key = in_key and (f.state = 'retry' or f.holds)
    order by f.id limit 1
  );
  return (
    select count(*) from failed_delivery as d
    where d.relay = in_relay and d.slot = in_slot and d.topic = in_topic and hashtextextended(d.key, 0) = hashtextextended(in_key, 0) and d.key = in_key and (d.state = 'retry' or d.holds)
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_store_failures(in_relay text, in_owner uuid, failures json)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  if not relay_owns(in_relay, in_owner, array(select (f ->> 'slot')::smallint from json_array_elements(failures) as f)) then
    return false;
  end if;
  insert into failed_delivery as d (
    relay, slot, topic, key, message_id, log_id, xid, change, bytes, state, holds, attempts,
    retry_at, first_attempt_at, last_attempt_at, dead_at, error_code, error_message
  )
  select
    in_relay, f.slot, f.topic, f.key, f.message_id, f.log_id, f.xid, f.change::json, octet_length(f.change), f.state, f.holds, f.attempts,
    -- What waits behind another one of its key is not looked at before it is its turn.
    case
      when f.state = 'retry' and f.attempts = 0 and f.key is not null then 'infinity'
      else clock_timestamp() + f.delay_ms * interval '1 millisecond'
    end,
    case when f.attempts > 0 then clock_timestamp() - f.since_ms * interval '1 millisecond' end,
    case when f.attempts > 0 then clock_timestamp() end,
    case when f.state = 'dead' then clock_timestamp() end,
    f.error_code, f.error_message
  from json_to_recordset(failures) as f (
    slot smallint, topic text, key text, message_id uuid, log_id bigint, xid bigint, change text, state text, holds boolean,
    attempts integer, delay_ms bigint, since_ms bigint, error_code text, error_message text
  )
  on conflict (relay, log_id, xid) do update set
    state = excluded.state, holds = excluded.holds, attempts = d.attempts + excluded.attempts, retry_at = excluded.retry_at,
    first_attempt_at = coalesce(d.first_attempt_at, excluded.first_attempt_at), last_attempt_at = excluded.last_attempt_at,
    dead_at = excluded.dead_at, error_code = excluded.error_code, error_message = excluded.error_message
    where excluded.attempts > 0;
  -- The other one may have gone meanwhile.
  update failed_delivery as d set retry_at = clock_timestamp()
  from (
    select distinct f.slot, f.topic, f.key from json_to_recordset(failures) as f (slot smallint, topic text, key text) where f.key is not null
  ) as k
  where d.state = 'retry' and d.retry_at = 'infinity' and d.id = (
    select h.id from failed_delivery as h
    where h.relay = in_relay and h.slot = k.slot and h.topic = k.topic and hashtextextended(h.key, 0) = hashtextextended(k.key, 0)
      and h.key = k.key and (h.state = 'retry' or h.holds)
    order by h.id limit 1
  );
  delete from relay_mark as m using json_to_recordset(failures) as f (log_id bigint, xid bigint)
  where m.relay = in_relay and m.log_id = f.log_id and m.xid = f.xid;
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_take(in_relay text, in_owner uuid, count integer)
 RETURNS TABLE(slot smallint, epoch bigint, "position" text, suspect boolean)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  taken smallint[];
begin
  perform from relay_member as m
  where m.relay = in_relay and m.owner = in_owner and m.expires_at > clock_timestamp()
  for share;
  if not found then
    return;
  end if;
  with free as (
    update relay_slot as s set owner = in_owner, epoch = s.epoch + 1
    where s.relay = in_relay and s.slot in (
      select v.slot from relay_slot as v where v.relay = in_relay and v.owner is null
      order by v.slot limit count for update skip locked
    )
    returning s.slot
  )
  select array_agg(f.slot) into taken from free as f;
  -- A statement of its own: it sees what the last owner saved, whenever that was.
  return query
    select p.slot, p.epoch, p.position, p.suspect from relay_place as p where p.relay = in_relay and p.slot = any (taken);
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.relay_turn()
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  turn relay_turn%rowtype;
  last_id bigint;
  is_empty boolean;
begin
  select * into strict turn from relay_turn;
  if turn.side = 0 then
    is_empty := not exists (select from only relay_checkpoint_1);
  else
    is_empty := not exists (select from only relay_checkpoint_0);
  end if;
  select s.last_value into last_id from relay_checkpoint_id_seq as s;
  if (is_empty and last_id - turn.first_id < turn.rows_max) or (not is_empty and turn.changed_at > now() - turn.pause) then
    return false;
  end if;

  perform from relay_turn as t where t.changed_at = turn.changed_at and t.side = turn.side and t.copied = turn.copied for update skip locked;
  if not found then
    return false;
  end if;

  if is_empty then
    update relay_turn as t set side = 1 - t.side, first_id = last_id, copied = false, changed_at = clock_timestamp();
    return true;
  end if;

  if not turn.copied then
    -- With their ids: a newer one that is being written at this moment stays the newer one.
    if turn.side = 0 then
      insert into relay_checkpoint_0 (id, relay, slot, position, snapshot)
      select c.id, c.relay, c.slot, c.position, c.snapshot from relay_slot as s cross join lateral (
        select * from only relay_checkpoint_1 as p where p.relay = s.relay and p.slot = s.slot order by p.id desc limit 1
      ) as c where not exists (select from only relay_checkpoint_0 as n where n.relay = c.relay and n.slot = c.slot and n.id >= c.id);
    else
      insert into relay_checkpoint_1 (id, relay, slot, position, snapshot)
      select c.id, c.relay, c.slot, c.position, c.snapshot from relay_slot as s cross join lateral (
        select * from only relay_checkpoint_0 as p where p.relay = s.relay and p.slot = s.slot order by p.id desc limit 1
      ) as c where not exists (select from only relay_checkpoint_1 as n where n.relay = c.relay and n.slot = c.slot and n.id >= c.id);
    end if;
    update relay_turn set copied = true, changed_at = clock_timestamp();
    return true;
  end if;

  begin
    execute format('lock table relay_checkpoint_%s in access exclusive mode nowait', 1 - turn.side);
  exception when lock_not_available then
    return false;
  end;
  -- One that was written there late, by somebody who had read whose turn it was before that changed.
  if exists (
    select from relay_slot as s
    cross join lateral (
      select
        coalesce((select max(p.id) from only relay_checkpoint_0 as p where p.relay = s.relay and p.slot = s.slot), 0) as in_0,
        coalesce((select max(p.id) from only relay_checkpoint_1 as p where p.relay = s.relay and p.slot = s.slot), 0) as in_1
    ) as l
    where case turn.side when 0 then l.in_1 > l.in_0 else l.in_0 > l.in_1 end
  ) then
    update relay_turn set copied = false, changed_at = clock_timestamp();
    return false;
  end if;
  execute format('truncate only relay_checkpoint_%s', 1 - turn.side);
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.release(table_name text)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  target constant regclass := find_table(release.table_name);
  standing record;
begin
  perform pg_advisory_xact_lock(hashtextextended('trunkline capture', target::oid::bigint));
  if not exists (select from topic as t where t.relation = target and t.captured)
    and not exists (select from stray_triggers(target)) then
    return false;
  end if;
  if not pg_has_role((select c.relowner from pg_class as c where c.oid = target), 'USAGE') then
    raise exception using errcode = 'TL003', message = format('role %I may not drop triggers of %s', current_user, target),
      hint = 'Run as the table''s owner.';
  end if;
  for standing in
    select s.relation, s.name from topic as t cross join lateral standing_triggers(t.id) as s where t.relation = target
    union
    select s.relation, s.name from stray_triggers(target) as s
  loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
  end loop;
  perform drop_keys_function(t.id) from topic as t where t.relation = target;
  update topic as t set captured = false where t.relation = target;
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.rotate()
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
 SET lock_timeout TO '100ms'
AS $function$
declare
  place installation%rowtype;
  present constant integer := log_slot();
  following constant integer := (present + 1) % 3;
  candidate slot%rowtype;
  done text := 'nothing';
begin
  select * into strict place from installation;
  if not pg_try_advisory_xact_lock(place.lock_class::integer, -1) then
    return 'busy';
  end if;

  for candidate in
    select * from slot as s where s.slot <> present and s.closed_at < now() - place.retention
  loop
    if empty_slot(candidate.slot, place.hold) then
      done := 'truncated';
    end if;
  end loop;

  if (select s.opened_at < now() - place.retention / 2 from slot as s where s.slot = present)
    and (select s.opened_at is null from slot as s where s.slot = following)
  then
    execute format(
      'create or replace function %s.log_slot() returns integer language sql stable as %L',
      (select relnamespace::regnamespace from pg_class where oid = 'log'::regclass),
      'select ' || following
    );
    update slot as s set closed_at = clock_timestamp() where s.slot = present;
    update slot as s set opened_at = clock_timestamp(), closed_at = null where s.slot = following;
    -- Those that rows are still read by stay, however old: a reader far behind goes from one to the next.
    delete from tick as t using installation as i
    where txid_snapshot_xmax(t.snapshot) <= i.truncated_xid and t.xid <= i.truncated_xid;
    done := 'rotated';
  end if;
  return done;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.save_aggregate_snapshot(in_type text, in_id text, in_schema_version integer, in_version bigint, in_event_id uuid, in_state text, in_subjects text)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  wanted constant text[] := array(select json_array_elements_text(in_subjects::json));
  locked integer;
begin
  if wanted <> '{}' then
    perform from subject_key as k
    where k.subject = any (wanted) and k.secret is not null
    order by k.subject
    for share;
    get diagnostics locked = row_count;
    if locked < cardinality(wanted) then
      return false;
    end if;
  end if;
  if not is_event_at(in_type, in_id, in_version, in_event_id) then
    return false;
  end if;
  insert into aggregate_snapshot as s (aggregate_type, aggregate_id, schema_version, version, event_id, state, subjects)
  values (in_type, in_id, in_schema_version, in_version, in_event_id, in_state::json, wanted)
  on conflict (aggregate_type, aggregate_id, schema_version) do update set
    version = excluded.version,
    event_id = excluded.event_id,
    state = excluded.state,
    subjects = excluded.subjects,
    written_at = excluded.written_at
  -- A newer one stays, unless it belongs to a history that the stream does not have.
  where s.version < excluded.version or not is_event_at(in_type, in_id, s.version, s.event_id);
  return found;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.set_wake(mode text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  if mode is null or mode not in ('elided', 'always', 'off') then
    raise exception using errcode = 'TL005', message = format('wake is %L, expected ''elided'', ''always'' or ''off''', mode),
      hint = 'For example: select trunkline.set_wake(''elided'').';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('trunkline set_wake', 'log'::regclass::oid::bigint));
  execute format(
    'create or replace function %s.wake_mode() returns text language sql stable as %L',
    (select relnamespace::regnamespace from pg_class where oid = 'log'::regclass),
    format('select %L::text', mode)
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.somebody_sleeps(lock_class integer, lock_key integer)
 RETURNS boolean
 LANGUAGE sql
AS $function$
  select case
    when pg_catalog.pg_try_advisory_lock($1, $2) then not pg_catalog.pg_advisory_unlock($1, $2)
    when not pg_catalog.pg_try_advisory_lock_shared($1, $2) then false
    when not pg_catalog.pg_advisory_unlock_shared($1, $2) then true
    when pg_catalog.pg_try_advisory_lock($1, $2) then not pg_catalog.pg_advisory_unlock($1, $2)
    else true
  end
$function$;

CREATE OR REPLACE FUNCTION trunkline.standing_triggers(topic bigint)
 RETURNS TABLE(relation oid, name text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select t.tgrelid, t.tgname::text
  from pg_trigger as t
  join pg_proc as p on p.oid = t.tgfoid
  where not t.tgisinternal
    and p.pronamespace = (select c.relnamespace from pg_class as c where c.oid = 'log'::regclass)
    -- Arguments are stored as text after text, each ended by a zero byte.
    and split_part(encode(t.tgargs, 'escape'), '\000', 1) = $1::text
    and not exists (
      select from pg_depend as d
      where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
        and d.refclassid = 'pg_trigger'::regclass and d.deptype in ('P', 'S', 'I')
    )
$function$;

CREATE OR REPLACE FUNCTION trunkline.stray_triggers(root oid DEFAULT NULL::oid)
 RETURNS TABLE(relation oid, name text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with home as (
    select c.relnamespace as oid from pg_class as c where c.oid = 'log'::regclass
  )
  select t.tgrelid, t.tgname::text
  from pg_trigger as t
  join pg_class as c on c.oid = t.tgrelid
  join pg_proc as p on p.oid = t.tgfoid
  join home as h on h.oid = p.pronamespace and h.oid <> c.relnamespace
  where not t.tgisinternal
    and (root is null or t.tgrelid in (select m.relation from table_tree(root) as m))
    and not exists (
      select from pg_depend as d
      where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
        and d.refclassid = 'pg_trigger'::regclass and d.deptype in ('P', 'S', 'I')
    )
    and not exists (
      select from topic as k
      cross join lateral wanted_triggers(k) as w
      -- Arguments are stored as text after text, each ended by a zero byte.
      where k.captured and k.id::text = split_part(encode(t.tgargs, 'escape'), '\000', 1)
        and w.relation = t.tgrelid and w.name = t.tgname::text
    )
$function$;

CREATE OR REPLACE FUNCTION trunkline.subject_keys(in_subjects text)
 RETURNS TABLE(subject text, key_id text, secret text, master_key text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select k.subject, k.key_id::text, k.secret, k.master_key
  from subject_key as k
  where k.subject in (select json_array_elements_text(in_subjects::json))
$function$;

CREATE OR REPLACE FUNCTION trunkline.table_fingerprint(table_oid oid)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  types text;
begin
  -- Labels of an enum and attributes of a composite change what every row shows. 16384: the first oid that is not the
  -- server's own. Few tables have such types, and the others are spared this.
  if exists (select from pg_attribute as a where a.attrelid = table_oid and a.atttypid >= 16384 and not a.attisdropped) then
    types := (
      with recursive used (type) as (
        select a.atttypid from pg_attribute as a where a.attrelid = table_oid and a.atttypid >= 16384 and not a.attisdropped
        union
        select n.type from used as u
        cross join lateral (
          select case t.typtype when 'd' then t.typbasetype else t.typelem end from pg_type as t where t.oid = u.type
          union all
          select a.atttypid from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid
          where t.oid = u.type and a.attnum > 0 and not a.attisdropped
        ) as n (type)
        where n.type >= 16384
      )
      select string_agg(concat_ws(' ', u.type,
        (select string_agg(concat_ws(' ', e.oid, e.enumlabel), ',' order by e.oid) from pg_enum as e where e.enumtypid = u.type),
        (select string_agg(concat_ws(' ', a.attnum, a.attname, a.xmin), ',' order by a.attnum)
          from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid where t.oid = u.type and a.attnum > 0)
      ), ',' order by u.type) from used as u
    );
  end if;
  return (
    select md5(concat_ws('|',
      -- Installed anew: what was written before has no place in this log.
      (select i.id from installation as i),
      (select concat_ws(' ', c.relnamespace, c.relname, c.relrowsecurity, c.relforcerowsecurity) from pg_class as c where c.oid = table_oid),
      (select string_agg(concat_ws(' ', p.oid, p.xmin), ',' order by p.oid) from pg_policy as p where p.polrelid = table_oid),
      -- xmin: a column may have got other values without another type (ALTER COLUMN … TYPE … USING, SET EXPRESSION).
      (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.xmin), ',' order by a.attnum)
        from pg_attribute as a where a.attrelid = table_oid and a.attnum > 0 and not a.attisdropped),
      types,
      (select i.indkey::text from pg_index as i where i.indrelid = table_oid and i.indisprimary),
      -- A partition that came later has no trigger on TRUNCATE (32), which gives it another file.
      (select string_agg(concat_ws(' ', t.relation, c.relfilenode), ',' order by t.relation)
        from table_tree(table_oid) as t
        left join pg_class as c on c.oid = t.relation and not t.is_root
          and not exists (select from pg_trigger as g where g.tgrelid = t.relation and g.tgtype & 32 <> 0)),
      (select string_agg(i.inhparent::text, ',' order by i.inhparent) from pg_inherits as i where i.inhrelid = table_oid),
      (select concat_ws(' ', t.id, t.captured, t.rows, t.exclude, t.filter, t.wake, t.key_columns) from topic as t where t.relation = table_oid),
      (select string_agg(concat_ws(' ', g.tgrelid, g.tgname, g.tgenabled), ',' order by g.tgrelid, g.tgname)
        from pg_trigger as g join pg_proc as p on p.oid = g.tgfoid
        where g.tgrelid in (select t.relation from table_tree(table_oid) as t)
          and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass))
    ))
  );
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.table_tree(root oid)
 RETURNS TABLE(relation oid, is_root boolean, is_leaf boolean)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with recursive tree as (
    select root as relation
    union
    select i.inhrelid from tree join pg_inherits as i on i.inhparent = tree.relation
  )
  select tree.relation, tree.relation = root, not exists (select from pg_inherits as i where i.inhparent = tree.relation)
  from tree
$function$;

CREATE OR REPLACE FUNCTION trunkline.tick_xids(low bigint, high bigint)
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
declare
  xids bigint[] := '{}';
  following bigint := low - 1;
begin
  loop
    select min(t.xid) into following from tick as t where t.xid > following and t.xid < high;
    exit when following is null;
    xids := xids || following;
  end loop;
  return xids;
end
$function$;

CREATE OR REPLACE FUNCTION trunkline.topic_rules(spec trunkline.topic)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select md5(concat_ws('|', spec.rows, spec.exclude::text, spec.filter, spec.key_columns::text))
$function$;

CREATE OR REPLACE FUNCTION trunkline.topic_signature(topic_id bigint)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  select case when t.relation is null then '' else md5(concat_ws('|',
    t.name, t.rows, t.exclude, t.key_columns, n.nspname, c.relname,
    (select i.indkey::text from pg_index as i where i.indrelid = t.relation and i.indisprimary),
    (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' order by a.attnum)
      from pg_attribute as a where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped)
  )) end
  from topic as t
  left join pg_class as c on c.oid = t.relation
  left join pg_namespace as n on n.oid = c.relnamespace
  where t.id = topic_id
  limit 1
$function$;

CREATE OR REPLACE FUNCTION trunkline.wake_key(topic bigint)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select $1::pg_catalog.bit(32)::pg_catalog.int4
$function$;

CREATE OR REPLACE FUNCTION trunkline.wake_mode()
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$select 'elided'::text$function$;

CREATE OR REPLACE FUNCTION trunkline.wanted_triggers(spec trunkline.topic)
 RETURNS TABLE(relation oid, name text, event text, function_name text, arguments text[])
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
  with root as (
    select
      c.oid,
      c.relkind,
      -- Rows that are reached by more than one name need row triggers.
      c.relkind = 'p' or exists (select from pg_inherits as i where c.oid in (i.inhrelid, i.inhparent)) as by_row,
      exists (select from pg_inherits as i where i.inhparent = c.oid) and c.relkind <> 'p' as is_inherited,
      -- With the topic: a partition may be captured by itself and with its root. At most 63 bytes.
      (
        select case when octet_length(n.nspname) <= 24 then n.nspname else left(md5(n.nspname), 24) end
        from pg_class as l join pg_namespace as n on n.oid = l.relnamespace
        where l.oid = 'log'::regclass
      ) || '_capture_' || spec.id as prefix,
      case when spec.rows = 'keys' or spec.exclude <> '{}' or spec.filter is not null
        -- A virtual column has to be computed.
        or exists (select from pg_attribute as a where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped)
        then 'capture_custom' end as custom,
      case when spec.rows = 'keys' and spec.filter is null then 'capture_keys_' || spec.id end as keyed
    from pg_class as c
    where c.oid = spec.relation
  ),
  events as (
    select r.oid as relation, r.prefix || '_' || e.suffix as name, e.event,
      coalesce(r.keyed, r.custom, 'capture_' || e.suffix) as function_name, 't' as truncated
    from root as r
    cross join (values
      ('insert', 'after insert on %s referencing new table as trunkline_new for each statement'),
      -- PostgreSQL 12 crashes on a row that moves between partitions when an UPDATE trigger names only one.
      ('update', 'after update on %s referencing old table as trunkline_old new table as trunkline_new for each statement'),
      ('delete', 'after delete on %s referencing old table as trunkline_old for each statement')
    ) as e (suffix, event)
    where not r.by_row
    union all
    -- A partitioned root hands its row trigger down; members of an inheritance tree each need one.
    select t.relation, r.prefix || '_row', 'after insert or update or delete on %s for each row', coalesce(r.custom, 'capture_row'), 't'
    from root as r
    cross join table_tree(r.oid) as t
    where r.by_row and (t.is_root or r.is_inherited)
    union all
    -- TRUNCATE of a partition or of one member of a tree leaves rows of the root in place: 'x', not 't'.
    select t.relation, r.prefix || '_truncate', 'after truncate on %s for each statement', 'capture_truncate',
      case when t.is_root and not r.is_inherited then 't' else 'x' end
    from root as r
    cross join table_tree(r.oid) as t
  )
  select e.relation, e.name, e.event, e.function_name,
    array[
      spec.id::text,
      coalesce(spec.wake, ''),
      i.lock_class::text,
      wake_key(spec.id)::text,
      i.channel,
      e.truncated
    ]
    -- A topic with other rules has other triggers: they are created anew, which waits for the writers that
    -- follow the old ones.
    || case when e.function_name ~ '^capture_(custom|keys_)' then array[topic_rules(spec)] else array[''] end
    || case when spec.wake is not null then array[spec.wake] else '{}' end
  from events as e
  cross join installation as i
$function$;

CREATE OR REPLACE FUNCTION trunkline.write_log(in_topic bigint, operations text[], olds json[], news json[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'trunkline', 'pg_temp'
AS $function$
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  else
    insert into log_2 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  end if;
  if currval('log_id_seq') % 4096 < cardinality(operations) then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
end
$function$;

-- views

create view trunkline.outbox as
 SELECT trunkline.message_id(l.id, l.xid, l.created_at) AS event_id,
    t.name AS aggregate_type,
    l.key AS aggregate_id,
    l.type AS event_type,
    l.payload,
    l.created_at,
        CASE
            WHEN s.relay IS NULL THEN 'READY'::text
            WHEN trunkline.is_covered(s."position", l.id, l.xid) AND NOT (EXISTS ( SELECT
               FROM trunkline.failed_delivery d
              WHERE d.relay = s.relay AND d.log_id = l.id AND d.xid = l.xid AND d.state <> 'done'::text)) THEN 'DONE'::text
            ELSE 'READY'::text
        END AS status,
    s.relay,
    l.id AS log_id
   FROM trunkline.log l
     CROSS JOIN LATERAL ( SELECT k.name
           FROM trunkline.topic k
          WHERE k.id = l.topic
         LIMIT 1) t
     LEFT JOIN trunkline.relay r ON r.topics IS NULL OR (l.topic = ANY (r.topics))
     LEFT JOIN trunkline.relay_place s ON s.relay = r.name AND s.slot = trunkline.key_slot(l.key, l.id, r.slots::integer)
  WHERE l.operation = 'e'::"char";

create view trunkline.relay_place as
 SELECT s.relay,
    s.slot,
    s.owner,
    s.epoch,
    s.suspect,
    c."position",
    c.snapshot
   FROM trunkline.relay_slot s
     CROSS JOIN LATERAL ( SELECT p."position",
            p.snapshot
           FROM trunkline.relay_checkpoint p
          WHERE p.relay = s.relay AND p.slot = s.slot
          ORDER BY p.id DESC
         LIMIT 1) c;

-- rights: what is not named here is the owner’s alone

grant execute on function trunkline.emit(text,text,text,jsonb,jsonb) to public;

grant usage on schema trunkline to public;
