-- Takes up to so many slots that nobody owns. Nothing when the process was removed meanwhile.
create or replace function :"schema".relay_take(in_relay text, in_owner uuid, count integer)
returns table (slot smallint, epoch bigint, "position" text, suspect boolean)
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  taken smallint[];
begin
  perform from relay_member as m
  where m.relay = in_relay and m.owner = in_owner and m.expires_at > clock_timestamp()
  for share;
  if not found then
    return;
  end if;
  with free as (
    update relay_slot as s set owner = in_owner, epoch = s.epoch + 1
    where s.relay = in_relay and s.slot in (
      select v.slot from relay_slot as v where v.relay = in_relay and v.owner is null
      order by v.slot limit count for update skip locked
    )
    returning s.slot
  )
  select array_agg(f.slot) into taken from free as f;
  -- A statement of its own: it sees what the last owner saved, whenever that was.
  return query
    select p.slot, p.epoch, p.position, p.suspect from relay_place as p where p.relay = in_relay and p.slot = any (taken);
end
$function$;

revoke execute on function :"schema".relay_take from public;
