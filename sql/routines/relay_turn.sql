-- Keeps the checkpoints few, without a dead row: writes to the other child when the present one has many; copies, some
-- seconds later, what still counts of the old one; and empties that, again some seconds later, so that no statement that
-- began before the copy finds neither. Waits for nobody: what is not possible now is done another time. True: it did something.
create or replace function :"schema".relay_turn() returns boolean
language plpgsql
-- TRUNCATE asks for the owner.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  turn relay_turn%rowtype;
  last_id bigint;
  is_empty boolean;
begin
  select * into strict turn from relay_turn;
  if turn.side = 0 then
    is_empty := not exists (select from only relay_checkpoint_1);
  else
    is_empty := not exists (select from only relay_checkpoint_0);
  end if;
  select s.last_value into last_id from relay_checkpoint_id_seq as s;
  if (is_empty and last_id - turn.first_id < turn.rows_max) or (not is_empty and turn.changed_at > now() - turn.pause) then
    return false;
  end if;

  perform from relay_turn as t where t.changed_at = turn.changed_at and t.side = turn.side and t.copied = turn.copied for update skip locked;
  if not found then
    return false;
  end if;

  if is_empty then
    update relay_turn as t set side = 1 - t.side, first_id = last_id, copied = false, changed_at = clock_timestamp();
    return true;
  end if;

  if not turn.copied then
    -- With their ids: a newer one that is being written at this moment stays the newer one.
    if turn.side = 0 then
      insert into relay_checkpoint_0 (id, relay, slot, position, snapshot)
      select c.id, c.relay, c.slot, c.position, c.snapshot from relay_slot as s cross join lateral (
        select * from only relay_checkpoint_1 as p where p.relay = s.relay and p.slot = s.slot order by p.id desc limit 1
      ) as c where not exists (select from only relay_checkpoint_0 as n where n.relay = c.relay and n.slot = c.slot and n.id >= c.id);
    else
      insert into relay_checkpoint_1 (id, relay, slot, position, snapshot)
      select c.id, c.relay, c.slot, c.position, c.snapshot from relay_slot as s cross join lateral (
        select * from only relay_checkpoint_0 as p where p.relay = s.relay and p.slot = s.slot order by p.id desc limit 1
      ) as c where not exists (select from only relay_checkpoint_1 as n where n.relay = c.relay and n.slot = c.slot and n.id >= c.id);
    end if;
    update relay_turn set copied = true, changed_at = clock_timestamp();
    return true;
  end if;

  begin
    execute format('lock table relay_checkpoint_%s in access exclusive mode nowait', 1 - turn.side);
  exception when lock_not_available then
    return false;
  end;
  -- One that was written there late, by somebody who had read whose turn it was before that changed.
  if exists (
    select from relay_slot as s
    cross join lateral (
      select
        coalesce((select max(p.id) from only relay_checkpoint_0 as p where p.relay = s.relay and p.slot = s.slot), 0) as in_0,
        coalesce((select max(p.id) from only relay_checkpoint_1 as p where p.relay = s.relay and p.slot = s.slot), 0) as in_1
    ) as l
    where case turn.side when 0 then l.in_1 > l.in_0 else l.in_0 > l.in_1 end
  ) then
    update relay_turn set copied = false, changed_at = clock_timestamp();
    return false;
  end if;
  execute format('truncate only relay_checkpoint_%s', 1 - turn.side);
  return true;
end
$function$;

revoke execute on function :"schema".relay_turn from public;
