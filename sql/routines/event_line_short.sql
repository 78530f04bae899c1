-- event_line() without the stream: for callers who know it.
create or replace function :"schema".event_line_short(e :"schema".event) returns text
language sql
stable
as $function$
  select '["' || e.position || '","' || e.id || '",' || e.version || ',' || pg_catalog.to_json(e.type) || ',' || e.schema_version
    || ',' || (pg_catalog.date_part('epoch', e.created_at) * 1000)::pg_catalog.int8 || ',' || e.metadata || ',' || e.payload || ']'
$function$;

revoke execute on function :"schema".event_line_short from public;
