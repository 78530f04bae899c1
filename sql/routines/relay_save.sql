-- Saves how far slots are, and returns those that the process still owns: nothing is saved of the others. `finished`: ids of
-- marked attempts that ended. `gives_back`: the slots are free afterwards.
create or replace function :"schema".relay_save(
  in_relay text,
  in_owner uuid,
  in_slots smallint[],
  positions text[],
  suspects boolean[],
  finished bigint[],
  gives_back boolean
) returns smallint[]
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with saved as (
    update relay_slot as s set
      position = v.position,
      snapshot = split_part(v.position, '/', 3)::txid_snapshot,
      suspect = v.suspect,
      owner = case when gives_back then null else s.owner end,
      epoch = s.epoch + gives_back::integer,
      updated_at = now()
    from unnest(in_slots, positions, suspects) as v (slot, position, suspect)
    where s.relay = in_relay and s.slot = v.slot and s.owner = in_owner
    returning s.slot, s.suspect, s.position
  ), unmarked as (
    delete from relay_mark as m using saved as s
    where m.relay = in_relay and m.slot = s.slot and (not s.suspect or m.log_id = any (finished))
  ), settled as (
    delete from failed_delivery as d using saved as s
    where d.relay = in_relay and d.slot = s.slot and d.state = 'done' and is_covered(s.position, d.log_id, d.xid)
  )
  select coalesce(array_agg(s.slot), '{}') from saved as s
$function$;

revoke execute on function :"schema".relay_save from public;
