-- A process ends its work for a relay. What it still owns it may have had in flight.
create or replace function :"schema".relay_leave(in_relay text, in_owner uuid) returns void
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  update relay_slot as s set owner = null, epoch = s.epoch + 1, suspect = true
  where s.relay = in_relay and s.owner = in_owner;
  delete from relay_member as m where m.relay = in_relay and m.owner = in_owner;
$function$;

revoke execute on function :"schema".relay_leave from public;
