-- True: the event with that id is the one at that version of the stream.
create or replace function :"schema".is_event_at(in_type text, in_id text, in_version bigint, in_event_id uuid) returns boolean
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select exists (
    select from event as e
    where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version = in_version and e.id = in_event_id
  )
$function$;

revoke execute on function :"schema".is_event_at from public;
