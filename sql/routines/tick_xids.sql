-- Transactions from `low` up to `high` that left a tick: those that may have written many rows. From one
-- to the next by the index, because a large one may have left thousands.
create or replace function :"schema".tick_xids(low bigint, high bigint) returns bigint[]
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  xids bigint[] := '{}';
  following bigint := low - 1;
begin
  loop
    select min(t.xid) into following from tick as t where t.xid > following and t.xid < high;
    exit when following is null;
    xids := xids || following;
  end loop;
  return xids;
end
$function$;

revoke execute on function :"schema".tick_xids from public;
