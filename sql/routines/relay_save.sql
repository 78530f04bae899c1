-- Saves how far slots are, and returns those that the process still owns: nothing is saved of the others. `finished`: ids of
-- marked attempts that ended. `gives_back`: the slots are free afterwards. Adds rows, and updates none unless a slot changes
-- hands or suspicion.
create or replace function :"schema".relay_save(
  in_relay text,
  in_owner uuid,
  in_slots smallint[],
  positions text[],
  suspects boolean[],
  finished bigint[],
  gives_back boolean
) returns smallint[]
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  -- They stay this process's own until the end of the transaction, so that the ids below are in the order of the owners.
  own constant smallint[] := array(
    select s.slot from relay_slot as s
    where s.relay = in_relay and s.slot = any (in_slots) and s.owner = in_owner
    order by s.slot for no key update
  );
begin
  if (select t.side from relay_turn as t) = 0 then
    insert into relay_checkpoint_0 (relay, slot, position, snapshot)
    select in_relay, v.slot, v.position, split_part(v.position, '/', 3)::txid_snapshot
    from unnest(in_slots, positions) as v (slot, position) where v.slot = any (own);
  else
    insert into relay_checkpoint_1 (relay, slot, position, snapshot)
    select in_relay, v.slot, v.position, split_part(v.position, '/', 3)::txid_snapshot
    from unnest(in_slots, positions) as v (slot, position) where v.slot = any (own);
  end if;
  update relay_slot as s set
    suspect = v.suspect,
    owner = case when gives_back then null else s.owner end,
    epoch = s.epoch + gives_back::integer
  from unnest(in_slots, suspects) as v (slot, suspect)
  where s.relay = in_relay and s.slot = v.slot and v.slot = any (own) and (gives_back or s.suspect <> v.suspect);
  delete from relay_mark as m using unnest(in_slots, suspects) as v (slot, suspect)
  where m.relay = in_relay and m.slot = v.slot and v.slot = any (own) and (not v.suspect or m.log_id = any (finished));
  delete from failed_delivery as d using unnest(in_slots, positions) as v (slot, position)
  where d.relay = in_relay and d.slot = v.slot and v.slot = any (own) and d.state = 'done' and is_covered(v.position, d.log_id, d.xid);
  return own;
end
$function$;

revoke execute on function :"schema".relay_save from public;
