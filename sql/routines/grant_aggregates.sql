-- Grants a role what a process needs that works with aggregates: all of grant_events, snapshots, and the keys of personal data.
-- To forget subjects it needs may_forget. Run as the owner of the schema.
create or replace function :"schema".grant_aggregates(role name, may_forget boolean default false) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  perform grant_events(role);
  execute format('grant execute on function aggregate_page, save_aggregate_snapshot, subject_keys, add_subject_keys to %I', role);
  if may_forget then
    execute format('grant execute on function forget_subject to %I', role);
  end if;
end
$function$;

revoke execute on function :"schema".grant_aggregates from public;
