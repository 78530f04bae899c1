-- Releases a table: drops its triggers, also those that a restore left without a capture. Returns false when it had none. What is in the log of
-- it stays until rotation. Locks: ACCESS EXCLUSIVE on the table for the drop.
create or replace function :"schema".release(table_name text) returns boolean
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  target constant regclass := find_table(release.table_name);
  standing record;
begin
  perform pg_advisory_xact_lock(hashtextextended('trunkline capture', target::oid::bigint));
  if not exists (select from topic as t where t.relation = target and t.captured)
    and not exists (select from stray_triggers(target)) then
    return false;
  end if;
  if not pg_has_role((select c.relowner from pg_class as c where c.oid = target), 'USAGE') then
    raise exception using errcode = 'TL003', message = format('role %I may not drop triggers of %s', current_user, target),
      hint = 'Run as the table''s owner.';
  end if;
  for standing in
    select s.relation, s.name from topic as t cross join lateral standing_triggers(t.id) as s where t.relation = target
    union
    select s.relation, s.name from stray_triggers(target) as s
  loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
  end loop;
  perform drop_keys_function(t.id) from topic as t where t.relation = target;
  update topic as t set captured = false where t.relation = target;
  return true;
end
$function$;

revoke execute on function :"schema".release from public;
