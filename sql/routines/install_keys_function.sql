-- Creates the trigger function that only this topic has, if its triggers want one, or drops it: see
-- keys_function. Its owner is the log's, as whom it runs.
create or replace function :"schema".install_keys_function(spec :"schema".topic) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  own_name constant text := 'capture_keys_' || spec.id;
  home record;
begin
  if not exists (select from wanted_triggers(spec) as w where w.function_name = own_name) then
    perform drop_keys_function(spec.id);
    return;
  end if;
  select n.nspname, c.relowner::regrole as owner into strict home
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  where c.oid = 'log'::regclass;
  execute keys_function(spec, home.nspname);
  execute format('alter function %I.%I() owner to %s', home.nspname, own_name, home.owner);
  execute format('revoke execute on function %I.%I() from public', home.nspname, own_name);
end
$function$;

revoke execute on function :"schema".install_keys_function from public;
