-- The SQL expression that makes the image of row `r` for a topic: the columns that may enter the log,
-- as they are now, null where the filter does not hold.
create or replace function :"schema".captured_image(spec :"schema".topic, relation oid) returns text
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  columns text;
  found_keys bigint;
  image text;
begin
  select string_agg(format('r.%I', a.attname), ', ' order by a.attnum),
    count(*) filter (where a.attname = any (spec.key_columns))
  into columns, found_keys
  from pg_attribute as a
  where a.attrelid = relation
    and a.attnum > 0
    and not a.attisdropped
    and a.attname <> all (spec.exclude)
    and (spec.rows = 'full' or a.attname = any (spec.key_columns));
  if columns is null or (spec.rows = 'keys' and found_keys <> cardinality(spec.key_columns)) then
    raise exception 'the columns that identify a row are gone';
  end if;
  image := format('(select row_to_json(p.*) from (select %s) as p)', columns);
  if spec.filter is not null then
    image := format('case when (%s) then %s end', spec.filter, image);
  end if;
  return image;
end
$function$;

revoke execute on function :"schema".captured_image from public;
