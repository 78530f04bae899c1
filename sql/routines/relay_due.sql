-- The stored deliveries of a process's slots that are the first of their key and to be attempted again, soonest first, with
-- the milliseconds until then by this server's clock. Behind a dead letter that holds its key nothing is due. `thorough`: looks
-- also at those that wait behind another one, in case that is gone by other means than an attempt; it takes as long as there
-- are many. Takes up what was redriven, as long as few wait for their first attempt.
create or replace function :"schema".relay_due(in_relay text, in_owner uuid, count integer, thorough boolean)
returns table (id bigint, slot smallint, topic text, key text, log_id bigint, attempts integer, due_ms bigint)
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  -- So many wait for their first attempt, and so many in all, before more are taken up.
  fresh_max constant integer := 500;
  retry_max constant integer := 1000;
  -- What waits behind another one has the time infinity; as a bound the index takes it, as a condition of two parts it does not.
  last constant timestamptz := case when thorough then 'infinity' else now() + interval '1000 years' end;
  own constant smallint[] := array(select s.slot from relay_slot as s where s.relay = in_relay and s.owner = in_owner);
begin
  if exists (select from unnest(own) as o (slot) join failed_delivery as d on d.relay = in_relay and d.slot = o.slot and d.state = 'redrive')
    and (
      select count(*) < retry_max and count(*) filter (where w.attempts = 0 and w.retry_at < 'infinity') < fresh_max
      from (select d.attempts, d.retry_at from failed_delivery as d where d.relay = in_relay and d.state = 'retry' limit retry_max) as w
    )
  then
    with chosen as (
      select r.id, row_number() over (partition by r.slot, r.topic, r.key order by r.id) as place
      from unnest(own) as o (slot)
      cross join lateral (
        select d.id, d.slot, d.topic, d.key from failed_delivery as d
        where d.relay = in_relay and d.slot = o.slot and d.state = 'redrive'
        order by d.id limit fresh_max / cardinality(own) + 1
      ) as r
    )
    update failed_delivery as d set state = 'retry', holds = false, retry_at = case
      when d.key is null or c.place = 1 and not exists (
        select from failed_delivery as f
        where f.relay = in_relay and f.slot = d.slot and f.topic = d.topic and hashtextextended(f.key, 0) = hashtextextended(d.key, 0)
          and f.key = d.key and f.id < d.id and (f.state = 'retry' or f.holds)
      ) then clock_timestamp()
      else 'infinity'
    end
    from chosen as c where d.id = c.id and d.state = 'redrive';
  end if;

  return query
    select
      d.id, d.slot, d.topic, d.key, d.log_id, d.attempts::integer,
      case when d.retry_at = 'infinity' then 0 else ceil(extract(epoch from d.retry_at - clock_timestamp()) * 1000)::bigint end
    from failed_delivery as d
    where d.relay = in_relay and d.state = 'retry' and d.retry_at <= last and d.slot = any (own)
      and not exists (
        select from failed_delivery as f
        where f.relay = in_relay and f.slot = d.slot and f.topic = d.topic and hashtextextended(f.key, 0) = hashtextextended(d.key, 0)
          and f.key = d.key and f.id < d.id and (f.state = 'retry' or f.holds)
      )
    order by d.retry_at, d.id
    limit count;
end
$function$;

revoke execute on function :"schema".relay_due from public;
