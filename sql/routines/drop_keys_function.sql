-- Drops the trigger function that only this topic has, if there is one: see keys_function.
create or replace function :"schema".drop_keys_function(topic bigint) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  standing constant regprocedure := (
    select p.oid from pg_proc as p
    where p.proname = 'capture_keys_' || drop_keys_function.topic
      and p.pronamespace = (select c.relnamespace from pg_class as c where c.oid = 'log'::regclass)
  );
begin
  if standing is not null then
    execute format('drop function %s', standing);
  end if;
end
$function$;

revoke execute on function :"schema".drop_keys_function from public;
