-- True when the process owns all of the slots, which stay its own until the end of the transaction.
create or replace function :"schema".relay_owns(in_relay text, in_owner uuid, in_slots smallint[]) returns boolean
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select count(*) = (select count(distinct n) from unnest(in_slots) as n)
  from (
    select from relay_slot as s
    where s.relay = in_relay and s.slot = any (in_slots) and s.owner = in_owner
    order by s.slot for share
  ) as owned
$function$;

revoke execute on function :"schema".relay_owns from public;
