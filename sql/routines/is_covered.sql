-- True when a reader at the position has had this row of the log.
create or replace function :"schema".is_covered(place text, log_id bigint, xid bigint) returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $function$
  select txid_visible_in_snapshot($3, split_part($1, '/', 3)::txid_snapshot) or (
    split_part($1, '/', 4) <> ''
    and txid_visible_in_snapshot($3, split_part($1, '/', 4)::txid_snapshot)
    and $2 <= split_part($1, '/', 5)::bigint
  )
$function$;

revoke execute on function :"schema".is_covered from public;
