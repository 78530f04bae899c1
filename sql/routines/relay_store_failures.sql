-- Stores deliveries that failed, and those that wait behind one, so that the relay may go on behind them. `failures` is a
-- JSON list. Of one that is stored already nothing changes but what its newer attempt says. False: the process no longer
-- owns one of the slots, nothing was stored.
create or replace function :"schema".relay_store_failures(in_relay text, in_owner uuid, failures json) returns boolean
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  if not relay_owns(in_relay, in_owner, array(select (f ->> 'slot')::smallint from json_array_elements(failures) as f)) then
    return false;
  end if;
  insert into failed_delivery as d (
    relay, slot, topic, key, message_id, log_id, xid, change, bytes, state, holds, attempts,
    retry_at, first_attempt_at, last_attempt_at, dead_at, error_code, error_message
  )
  select
    in_relay, f.slot, f.topic, f.key, f.message_id, f.log_id, f.xid, f.change::json, octet_length(f.change), f.state, f.holds, f.attempts,
    -- What waits behind another one of its key is not looked at before it is its turn.
    case
      when f.state = 'retry' and f.attempts = 0 and f.key is not null then 'infinity'
      else clock_timestamp() + f.delay_ms * interval '1 millisecond'
    end,
    case when f.attempts > 0 then clock_timestamp() - f.since_ms * interval '1 millisecond' end,
    case when f.attempts > 0 then clock_timestamp() end,
    case when f.state = 'dead' then clock_timestamp() end,
    f.error_code, f.error_message
  from json_to_recordset(failures) as f (
    slot smallint, topic text, key text, message_id uuid, log_id bigint, xid bigint, change text, state text, holds boolean,
    attempts integer, delay_ms bigint, since_ms bigint, error_code text, error_message text
  )
  on conflict (relay, log_id, xid) do update set
    state = excluded.state, holds = excluded.holds, attempts = d.attempts + excluded.attempts, retry_at = excluded.retry_at,
    first_attempt_at = coalesce(d.first_attempt_at, excluded.first_attempt_at), last_attempt_at = excluded.last_attempt_at,
    dead_at = excluded.dead_at, error_code = excluded.error_code, error_message = excluded.error_message
    where excluded.attempts > 0;
  -- The other one may have gone meanwhile.
  update failed_delivery as d set retry_at = clock_timestamp()
  from (
    select distinct f.slot, f.topic, f.key from json_to_recordset(failures) as f (slot smallint, topic text, key text) where f.key is not null
  ) as k
  where d.state = 'retry' and d.retry_at = 'infinity' and d.id = (
    select h.id from failed_delivery as h
    where h.relay = in_relay and h.slot = k.slot and h.topic = k.topic and hashtextextended(h.key, 0) = hashtextextended(k.key, 0)
      and h.key = k.key and (h.state = 'retry' or h.holds)
    order by h.id limit 1
  );
  delete from relay_mark as m using json_to_recordset(failures) as f (log_id bigint, xid bigint)
  where m.relay = in_relay and m.log_id = f.log_id and m.xid = f.xid;
  return true;
end
$function$;

revoke execute on function :"schema".relay_store_failures from public;
