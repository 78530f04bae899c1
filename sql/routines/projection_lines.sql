-- Committed events after a position (null in_until: to the last one), in the order of their positions, as event_line() writes them.
create or replace function :"schema".projection_lines(in_after bigint, in_until bigint, in_categories text[], in_limit integer) returns text
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select '[' || string_agg(event_line(e), ',' order by e.position) || ']'
  from (
    select * from event as e
    where e.position > in_after and (in_until is null or e.position <= in_until)
      and (in_categories is null or e.aggregate_type = any (in_categories))
    order by e.position
    limit in_limit
  ) as e
$function$;

revoke execute on function :"schema".projection_lines from public;
