-- An event as one JSON list: position, id, version, type, schema version, milliseconds since 1970, metadata, payload, aggregate
-- type, aggregate id. Inlined into its callers, so that the library reads many events as one text and parses it once.
create or replace function :"schema".event_line(e :"schema".event) returns text
language sql
stable
as $function$
  select '["' || e.position || '","' || e.id || '",' || e.version || ',' || pg_catalog.to_json(e.type) || ',' || e.schema_version
    || ',' || (pg_catalog.date_part('epoch', e.created_at) * 1000)::pg_catalog.int8 || ',' || e.metadata || ',' || e.payload
    || ',' || pg_catalog.to_json(e.aggregate_type) || ',' || pg_catalog.to_json(e.aggregate_id) || ']'
$function$;

revoke execute on function :"schema".event_line from public;
