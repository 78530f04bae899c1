-- The stored deliveries of a process's slots that are the first of their key and to be attempted again, soonest first, with
-- the milliseconds until then by this server's clock. Behind a dead letter that holds its key nothing is due.
create or replace function :"schema".relay_due(in_relay text, in_owner uuid, count integer)
returns table (id bigint, slot smallint, topic text, key text, log_id bigint, attempts integer, due_ms bigint)
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select h.id, h.slot, h.topic, h.key, h.log_id, h.attempts, ceil(extract(epoch from h.retry_at - clock_timestamp()) * 1000)::bigint
  from (
    select distinct on (d.topic, d.key, case when d.key is null then d.id end)
      d.id, d.slot, d.topic, d.key, d.log_id, d.attempts::integer as attempts, d.retry_at, d.state
    from failed_delivery as d
    join relay_slot as s on s.relay = d.relay and s.slot = d.slot
    where d.relay = in_relay and s.owner = in_owner and (d.state = 'retry' or d.holds)
    order by d.topic, d.key, case when d.key is null then d.id end, d.id
  ) as h
  where h.state = 'retry'
  order by h.retry_at, h.id
  limit $3
$function$;

revoke execute on function :"schema".relay_due from public;
