-- An id for an event that came without one: a uuid of version 7, by time, so that new entries of the index lie together.
create or replace function :"schema".event_id() returns uuid
language sql
volatile
as $function$
  select (
    pg_catalog.lpad(pg_catalog.to_hex((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8), 12, '0')
    || '7' || pg_catalog.substr(h, 14, 3) || '8' || pg_catalog.substr(h, 18, 15)
  )::pg_catalog.uuid
  from pg_catalog.md5(pg_catalog.concat_ws(
    '/', pg_catalog.random(), pg_catalog.random(), pg_catalog.clock_timestamp(), pg_catalog.pg_backend_pid()
  )) as h
$function$;

revoke execute on function :"schema".event_id from public;
