-- Headers under which an event is relayed: its id and version, and what its metadata says of where it comes from.
create or replace function :"schema".event_headers(id uuid, version bigint, metadata jsonb) returns json
language sql
stable
as $function$
  select pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
    'eventId', $1, 'version', $2::text, 'correlationId', $3 ->> 'correlationId', 'causationId', $3 ->> 'causationId',
    'userId', $3 ->> 'userId', 'traceparent', $3 ->> 'traceparent'
  ))
$function$;

revoke execute on function :"schema".event_headers from public;
