-- What an aggregate's state is computed from: a state to begin with, and events that follow on it, as one snapshot sees them.
--
-- in_base, in_base_id, in_subjects: version, its event's id and the subjects (a JSON list) of a state that the caller has
-- already; it counts while that event is in the stream and no such subject is forgotten. in_schema_version: of a stored
-- snapshot that may be used instead; null: none. in_to, in_as_of: how far; null: to the end. Invariants A2 to A4 of
-- docs/aggregates.md.
create or replace function :"schema".aggregate_page(
  in_type text,
  in_id text,
  in_schema_version integer,
  in_base bigint,
  in_base_id uuid,
  in_subjects text,
  in_to bigint,
  in_as_of timestamptz,
  in_rows integer,
  in_bytes bigint,
  -- The stream's version, as far as it was asked for; 0: no events.
  out head bigint,
  -- The version that the events below follow on: in_base, or that of the snapshot, or 0.
  out base bigint,
  -- The snapshot's, if it is one.
  out base_id uuid,
  out state text,
  out subjects text,
  -- As event_stream_page() gives them.
  out events text
)
language plpgsql
stable
-- Whoever loads aggregates needs no right to the keys.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
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

revoke execute on function :"schema".aggregate_page from public;
