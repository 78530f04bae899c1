-- Committed events after a position (null in_until: to the last one), in the order of their positions, as event_page() gives them;
-- null where there are none.
create or replace function :"schema".projection_events(in_after bigint, in_until bigint, in_categories text[], in_limit integer) returns text
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
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

revoke execute on function :"schema".projection_events from public;
