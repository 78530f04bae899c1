-- Appends to several streams at once, all or none, where nothing is in the way: for the library, which sends together what comes
-- together. It does not say what is in the way: after any error each append is to be sent by itself, with append_events().
--
-- in_units: a list of {type, id, expected}, each of another stream, in the order in which locks are to be taken; expected as of
-- append_events(). in_is_queued: some have no expected version. in_events: a list of {u, o, id, type, schema_version, payload,
-- metadata}: u is the place of the event's unit, o its place in the unit, both from 1. in_lock_timeout_ms: longest wait for a lock.
--
-- One INSERT, without "on conflict", which makes a row half as dear again: who was faster, or an id that is known, is a
-- unique_violation. Invariants E1 to E3, E6 to E8 of docs/events.md.
create or replace function :"schema".append_group(
  in_units json,
  in_is_queued boolean,
  in_events json,
  in_lock_timeout_ms integer,
  -- Of the events, unit after unit, as text with commas.
  out positions text,
  out versions text
)
language plpgsql
-- Writers need no right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  types text[];
  ids text[];
  tails bigint[];
  times timestamptz[];
begin
  perform set_config('lock_timeout', in_lock_timeout_ms::text, true);
  if in_is_queued then
    perform pg_advisory_xact_lock(hashtextextended(u.type || '-' || u.id, 7))
    from json_to_recordset(in_units) as u (type text, id text, expected bigint)
    where u.expected < 0;
  end if;
  -- With a snapshot of its own, after the locks. Where a stream has more events than expected, the one expected is found, and the
  -- INSERT meets the one after it.
  select array_agg(s.type), array_agg(s.id), array_agg(s.tail), array_agg(s.created_at)
  into types, ids, tails, times
  from (
    select u.type, u.id, greatest(t.created_at, date_trunc('milliseconds', clock_timestamp())) as created_at,
      case when u.expected in (-1, coalesce(t.version, 0)) or (u.expected = -2 and t.version > 0) then coalesce(t.version, 0) end as tail
    from rows from (json_to_recordset(in_units) as (type text, id text, expected bigint)) with ordinality as u (type, id, expected, place)
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
    select e.id, types[e.u], ids[e.u], tails[e.u] + e.o, e.type, coalesce(e.schema_version, 1), coalesce(e.payload, 'null'),
      coalesce(e.metadata, '{}'), times[e.u]
    from json_to_recordset(in_events) as e (u integer, o integer, id uuid, type text, schema_version integer, payload json, metadata jsonb)
    order by e.u, e.o
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

revoke execute on function :"schema".append_group from public;
