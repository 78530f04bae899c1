-- Parks events: a list of {type, id, position, event_id, version, event_type, attempts, code, error, first_at} (the last four for one that failed).
create or replace function :"schema".projection_park(in_projection text, in_build bigint, in_partition integer, in_events json) returns void
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
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

revoke execute on function :"schema".projection_park from public;
