-- Forgets up to `step` messages that were handled longer ago than installation.inbox_retention, oldest first, and returns how
-- many: call again while it returns `step`. Waits for nobody.
create or replace function :"schema".inbox_clean(step integer default 1000) returns integer
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  forgotten integer;
begin
  with old as (
    select b.consumer, b.message_id from inbox as b
    where b.handled_at < now() - (select i.inbox_retention from installation as i)
    order by b.handled_at limit step
    for update skip locked
  )
  delete from inbox as b using old as o where b.consumer = o.consumer and b.message_id = o.message_id;
  get diagnostics forgotten = row_count;
  return forgotten;
end
$function$;

revoke execute on function :"schema".inbox_clean from public;
