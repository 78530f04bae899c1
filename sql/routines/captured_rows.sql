-- The statement that pairs old and new images and tells what happened to each row: a row that enters
-- the filter is inserted, one that leaves it is deleted. With keys only, an update carries the old
-- key only when the key changed.
create or replace function :"schema".captured_rows(old_side text, new_side text, keys_only boolean) returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $function$
  select format(
    'select array_agg(case when %s then o.image end order by ordinal), array_agg(n.image order by ordinal), '
    || 'array_agg(case when o.image is null then ''i'' when n.image is null then ''d'' else ''u'' end order by ordinal) '
    || 'from (%s) as o full join (%s) as n using (ordinal) where o.image is not null or n.image is not null',
    case when keys_only then 'o.image::text is distinct from n.image::text' else 'true' end,
    old_side,
    new_side
  )
$function$;

revoke execute on function :"schema".captured_rows from public;
