-- The lock that writers of a read model share and a swap has alone (docs/projections.md, P3), held until the transaction ends.
create or replace function :"schema".projection_gate(in_projection text, is_alone boolean default false) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  key constant bigint := hashtextextended('projection ' || in_projection, 'projection'::regclass::oid::bigint);
begin
  if is_alone then
    perform pg_advisory_xact_lock(key);
  else
    perform pg_advisory_xact_lock_shared(key);
  end if;
end
$function$;

revoke execute on function :"schema".projection_gate from public;
