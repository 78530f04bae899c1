-- What a trigger has of a table's rows, as SQL after FROM: `source`, and where the table has virtual columns a subquery
-- that computes them as a SELECT of the table does. A trigger sees null in their place, since they are stored nowhere.
create or replace function :"schema".captured_source(relation oid, source text) returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when bool_or(a.attgenerated = 'v') then format(
      '(select %s from %s as v)',
      string_agg(
        -- The expression names its columns without a table: they are found in v.
        case a.attgenerated when 'v' then format('(%s) as %I', pg_get_expr(d.adbin, d.adrelid), a.attname) else format('v.%I', a.attname) end,
        ', ' order by a.attnum
      ),
      source
    )
    else source
  end
  from pg_attribute as a
  left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$function$;

revoke execute on function :"schema".captured_source from public;
