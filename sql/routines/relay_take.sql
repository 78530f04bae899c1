-- Takes up to so many slots that nobody owns. Nothing when the process was removed meanwhile.
create or replace function :"schema".relay_take(in_relay text, in_owner uuid, count integer)
returns setof :"schema".relay_slot
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with member as (
    select from relay_member as m
    where m.relay = in_relay and m.owner = in_owner and m.expires_at > clock_timestamp()
    for share
  )
  update relay_slot as s set owner = in_owner, epoch = s.epoch + 1, updated_at = now()
  where s.relay = in_relay and exists (select from member) and s.slot in (
    select v.slot from relay_slot as v where v.relay = in_relay and v.owner is null
    order by v.slot limit $3 for update skip locked
  )
  returning s.*
$function$;

revoke execute on function :"schema".relay_take from public;
