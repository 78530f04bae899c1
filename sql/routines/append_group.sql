-- Appends to several streams at once, all or none, where nothing is in the way: for the library, which sends together what comes
-- together. It does not say what is in the way: after any error each append is to be sent by itself, with append_events().
--
-- in_stream_types, in_stream_ids, in_expected: the streams, each another, in the order in which locks are to be taken; expected as of
-- append_events(). in_is_queued: some have no expected version. The events, column by column as of append_events(), and before that:
-- in_units, the place of an event's stream, and in_places, its own place among those of the stream, both from 1.
-- in_lock_timeout_ms: longest wait for a lock.
--
-- One INSERT, without "on conflict", which makes a row half as dear again: who was faster, or an id that is known, is a
-- unique_violation. Invariants E1 to E3, E6 to E8 of docs/events.md.
create or replace function :"schema".append_group(
  in_stream_types text[],
  in_stream_ids text[],
  in_expected bigint[],
  in_is_queued boolean,
  in_units integer[],
  in_places integer[],
  in_ids uuid[],
  in_types text[],
  in_schema_versions integer[],
  in_payloads json,
  in_metadata json,
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

revoke execute on function :"schema".append_group from public;
