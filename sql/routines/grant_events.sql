-- Grants a role what a process needs that works with events: to read them, and with may_append (default) to append. Nobody may
-- write to the table itself but its owner. Run as the owner of the schema.
create or replace function :"schema".grant_events(role name, may_append boolean default true) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  -- Reading includes waiting for what is new, as a reader of the log does.
  perform grant_reader(role);
  if may_append then
    execute format('grant execute on function append(text, text, jsonb), append(text, bigint, jsonb), append_events, append_group to %I', role);
  end if;
end
$function$;

revoke execute on function :"schema".grant_events from public;
