-- Counts attempts before they are made, while a slot is suspect: whoever takes over after a death learns what was in flight.
-- False: the process no longer owns one of the slots.
create or replace function :"schema".relay_mark_attempts(
  in_relay text,
  in_owner uuid,
  in_slots smallint[],
  in_ids bigint[],
  in_xids bigint[],
  is_alone boolean
) returns boolean
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  if not relay_owns(in_relay, in_owner, in_slots) then
    return false;
  end if;
  insert into relay_mark as m (relay, slot, log_id, xid, alone)
  select in_relay, v.slot, v.log_id, v.xid, is_alone
  from unnest(in_slots, in_ids, in_xids) as v (slot, log_id, xid)
  on conflict (relay, log_id, xid) do update
    set attempts = m.attempts + 1, alone = excluded.alone, started_at = excluded.started_at;
  return true;
end
$function$;

revoke execute on function :"schema".relay_mark_attempts from public;
