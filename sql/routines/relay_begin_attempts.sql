-- Counts a new attempt of the first of a key's stored deliveries and of up to `behind` that wait behind it, before it is
-- made, and gives them in their order. `in_delay_ms`: when to try again if nobody says how it ended. A dead letter that
-- holds its key ends the list, and so does one with which they would have more than 4 MiB.
create or replace function :"schema".relay_begin_attempts(
  in_relay text,
  in_owner uuid,
  first_id bigint,
  behind integer,
  in_delay_ms bigint
) returns table (id bigint, attempts integer, change text, since_ms bigint)
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with head as (
    select d.id, d.topic, d.key, d.slot from failed_delivery as d where d.id = first_id and d.relay = in_relay and d.state = 'retry'
  ), chosen as (
    select f.id from head as h
    cross join lateral (
      select d.id, bool_or(d.state <> 'retry') over (order by d.id) as is_held, sum(d.bytes) over (order by d.id) as bytes
      from failed_delivery as d
      where d.relay = in_relay and d.slot = h.slot and d.topic = h.topic and hashtextextended(d.key, 0) = hashtextextended(h.key, 0) and d.key = h.key and (d.state = 'retry' or d.holds)
      order by d.id limit behind + 1
    ) as f
    where not f.is_held and f.bytes <= 4194304
    union
    select h.id from head as h
  ), begun as (
    update failed_delivery as d set
      attempts = d.attempts + 1,
      first_attempt_at = coalesce(d.first_attempt_at, clock_timestamp()),
      last_attempt_at = clock_timestamp(),
      retry_at = clock_timestamp() + in_delay_ms * interval '1 millisecond'
    from chosen as c
    where d.id = c.id
      and exists (select from relay_slot as s where s.relay = d.relay and s.slot = d.slot and s.owner = in_owner)
    returning d.id, d.attempts::integer as attempts, d.change::text as change,
      (extract(epoch from clock_timestamp() - d.first_attempt_at) * 1000)::bigint as since_ms
  )
  select * from begun as b order by b.id
$function$;

revoke execute on function :"schema".relay_begin_attempts from public;
