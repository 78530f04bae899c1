-- A process begins to work for a relay, which is made if there is none. `start` is where a new one begins: 'beginning' (all
-- that is still in the log), 'now', or a position. Returns the relay's number of slots.
create or replace function :"schema".relay_join(
  in_relay text,
  in_owner uuid,
  in_process text,
  in_lease_ms integer,
  in_slots integer,
  in_topics bigint[],
  in_sink text,
  start text
) returns integer
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  place constant text := case start
    when 'beginning' then concat_ws('/', '1', log_identity(), log_beginning()::text)
    when 'now' then concat_ws('/', '1', log_identity(), txid_current_snapshot()::text)
    else start
  end;
  seen constant txid_snapshot := split_part(place, '/', 3)::txid_snapshot;
  sorted constant bigint[] := (select array_agg(x order by x) from unnest(in_topics) as x);
  previous record;
  slot_count integer;
  made_slots smallint[];
begin
  -- One that delivers other topics would save places past events of the topics that only this one has.
  select r.topics into previous from relay as r where r.name = in_relay for update;
  if found and previous.topics is distinct from sorted and exists (
    select from relay_member as m where m.relay = in_relay and m.expires_at > clock_timestamp()
  ) then
    raise exception using errcode = 'TL009', message = format('processes of relay %L run that deliver other topics', in_relay),
      hint = 'Stop them first, then start this one; or give it another name.';
  end if;
  insert into relay as r (name, slots, topics, sink) values (in_relay, in_slots, sorted, in_sink)
  on conflict (name) do update set topics = excluded.topics, sink = excluded.sink
    where (r.topics, r.sink) is distinct from (excluded.topics, excluded.sink);
  select r.slots into strict slot_count from relay as r where r.name = in_relay;
  with made as (
    insert into relay_slot as s (relay, slot)
    select in_relay, n from generate_series(0, slot_count - 1) as n
    on conflict (relay, slot) do nothing
    returning s.slot
  )
  select array_agg(m.slot) into made_slots from made as m;
  if (select t.side from relay_turn as t) = 0 then
    insert into relay_checkpoint_0 (relay, slot, position, snapshot) select in_relay, n, place, seen from unnest(made_slots) as n;
  else
    insert into relay_checkpoint_1 (relay, slot, position, snapshot) select in_relay, n, place, seen from unnest(made_slots) as n;
  end if;
  insert into reader (name, position, snapshot) values ('relay:' || in_relay, place, seen)
  on conflict (name) do nothing;
  insert into relay_member (relay, owner, process, expires_at)
  values (in_relay, in_owner, in_process, clock_timestamp() + in_lease_ms * interval '1 millisecond');
  return slot_count;
end
$function$;

revoke execute on function :"schema".relay_join from public;
