-- Resolves a table written as in SQL (orders, app.orders, "Odd Schema"."T ü"); without a schema it is
-- looked up in public. Anything that cannot be captured is met with an error that says why.
create or replace function :"schema".find_table(table_name text) returns regclass
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  parts text[];
  relation pg_class%rowtype;
  what text;
begin
  begin
    parts := parse_ident(table_name);
  exception when others then
    raise exception using errcode = 'TL005', message = format('%L is not a table name', table_name),
      hint = 'Write it as in SQL: orders, app.orders or "Odd Schema"."Odd Table".';
  end;
  if cardinality(parts) = 1 then
    parts := array['public'] || parts;
  elsif cardinality(parts) <> 2 then
    raise exception using errcode = 'TL005', message = format('%L is not a table name of one or two parts', table_name),
      hint = 'Write it as schema.table; other databases are out of reach.';
  end if;
  select c.* into relation
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = parts[1] and c.relname = parts[2];
  if not found then
    raise exception using errcode = 'TL001', message = format('table %I.%I does not exist', parts[1], parts[2]),
      hint = 'Check schema and spelling; a name without a schema is looked up in public, and names in double quotes keep their case.';
  end if;

  what := case
    when relation.relkind = 'v' then 'a view'
    when relation.relkind = 'm' then 'a materialized view'
    when relation.relkind = 'f' then 'a foreign table'
    when relation.relkind = 'S' then 'a sequence'
    when relation.relkind not in ('r', 'p') then 'not a table'
    when relation.relpersistence = 't' then 'a temporary table'
    when relation.relpersistence = 'u' then 'an unlogged table'
    when parts[1] in ('pg_catalog', 'information_schema', 'pg_toast') then 'a system table'
    when relation.relnamespace = (select relnamespace from pg_class where oid = 'log'::regclass) then 'a table of trunkline itself'
  end;
  if what is not null then
    raise exception using errcode = 'TL002', message = format('%I.%I is %s and cannot be captured', parts[1], parts[2], what),
      hint = case
        when relation.relkind in ('v', 'm') then 'Capture the tables it reads.'
        when relation.relkind = 'f' then 'Capture the table on the server where it lives.'
        when relation.relpersistence = 'u' then 'A crash empties it without firing a trigger: alter table … set logged.'
        else 'Capture an ordinary or partitioned table.'
      end;
  end if;
  return relation.oid::regclass;
end
$function$;

revoke execute on function :"schema".find_table from public;
