-- Grants a role what a process needs that only handles messages (inbox.once, inbox.clean): no table. Run as the owner of the
-- schema.
create or replace function :"schema".grant_inbox(role name) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  place constant name := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'inbox'::regclass);
begin
  if not exists (select from pg_roles as r where r.rolname = grant_inbox.role) then
    raise exception using errcode = 'TL005', message = format('role %I does not exist', role),
      hint = format('Create it first: create role %I login.', role);
  end if;
  execute format('grant usage on schema %I to %I', place, role);
  execute format('grant execute on function inbox_claim, inbox_forget, inbox_clean to %I', role);
end
$function$;

revoke execute on function :"schema".grant_inbox from public;
