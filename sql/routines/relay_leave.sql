-- A process ends its work for a relay. What it still owns it may have had in flight. The log is told how far the relay is, as by
-- a heartbeat: the last one was before the last places.
create or replace function :"schema".relay_leave(in_relay text, in_owner uuid) returns void
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  update relay_slot as s set owner = null, epoch = s.epoch + 1, suspect = true
  where s.relay = in_relay and s.owner = in_owner;
  delete from relay_member as m where m.relay = in_relay and m.owner = in_owner;
  update reader as r set position = l.position, snapshot = l.snapshot, updated_at = now()
  from (
    select s.position, s.snapshot from relay_place as s where s.relay = in_relay
    order by txid_snapshot_xmax(s.snapshot), (select count(*) from txid_snapshot_xip(s.snapshot)) desc, s.slot
    limit 1
  ) as l
  where r.name = 'relay:' || in_relay and r.position <> l.position;
$function$;

revoke execute on function :"schema".relay_leave from public;
