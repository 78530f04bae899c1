-- The stored deliveries of a process's slots that are the first of their key and to be attempted again, soonest first, with
-- the milliseconds until then by this server's clock. Behind a dead letter that holds its key nothing is due. `thorough`: looks
-- also at those that wait behind another one, in case that is gone by other means than an attempt; it takes as long as there
-- are many.
create or replace function :"schema".relay_due(in_relay text, in_owner uuid, count integer, thorough boolean)
returns table (id bigint, slot smallint, topic text, key text, log_id bigint, attempts integer, due_ms bigint)
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select
    d.id, d.slot, d.topic, d.key, d.log_id, d.attempts::integer,
    case when d.retry_at = 'infinity' then 0 else ceil(extract(epoch from d.retry_at - clock_timestamp()) * 1000)::bigint end
  from failed_delivery as d
  where d.relay = in_relay and d.state = 'retry' and (thorough or d.retry_at < 'infinity')
    and d.slot = any (array(select s.slot from relay_slot as s where s.relay = in_relay and s.owner = in_owner))
    and not exists (
      select from failed_delivery as f
      where f.relay = in_relay and f.slot = d.slot and f.topic = d.topic and hashtextextended(f.key, 0) = hashtextextended(d.key, 0)
        and f.key = d.key and f.id < d.id and (f.state = 'retry' or f.holds)
    )
  order by d.retry_at, d.id
  limit count
$function$;

revoke execute on function :"schema".relay_due from public;
