-- Tells how attempts of stored deliveries ended: `done` are removed as soon as their slot's position covers them, `failures` (a JSON list) stay with what is known now.
-- Returns how many of the key are stored still.
create or replace function :"schema".relay_settle_attempts(
  in_relay text,
  in_owner uuid,
  done bigint[],
  failures json,
  in_slot smallint,
  in_topic text,
  in_key text
) returns integer
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  delete from failed_delivery as d using relay_place as s
  where d.relay = in_relay and d.id = any (done) and s.relay = d.relay and s.slot = d.slot and is_covered(s.position, d.log_id, d.xid);
  update failed_delivery as d set state = 'done', holds = false where d.relay = in_relay and d.id = any (done);
  update failed_delivery as d set
    state = f.state, holds = f.holds, attempts = f.attempts,
    error_code = coalesce(f.error_code, d.error_code), error_message = coalesce(f.error_message, d.error_message),
    retry_at = clock_timestamp() + f.delay_ms * interval '1 millisecond',
    dead_at = case when f.state = 'dead' then clock_timestamp() end
  from json_to_recordset(failures) as f (
    id bigint, state text, holds boolean, attempts integer, delay_ms bigint, error_code text, error_message text
  )
  where d.relay = in_relay and d.id = f.id
    and exists (select from relay_slot as s where s.relay = d.relay and s.slot = d.slot and s.owner = in_owner for share);
  -- The next one of the key has its turn.
  update failed_delivery as d set retry_at = clock_timestamp()
  where d.state = 'retry' and d.retry_at = 'infinity' and d.id = (
    select f.id from failed_delivery as f
    where f.relay = in_relay and f.slot = in_slot and f.topic = in_topic and hashtextextended(f.key, 0) = hashtextextended(in_key, 0)
      and f.key = in_key and (f.state = 'retry' or f.holds)
    order by f.id limit 1
  );
  return (
    select count(*) from failed_delivery as d
    where d.relay = in_relay and d.slot = in_slot and d.topic = in_topic and hashtextextended(d.key, 0) = hashtextextended(in_key, 0) and d.key = in_key and (d.state = 'retry' or d.holds)
  );
end
$function$;

revoke execute on function :"schema".relay_settle_attempts from public;
