-- Streams in the order of their names, after the one given, at most in_rows: their version, and when their first and last event
-- was appended. It goes from stream to stream by the index, however many events they have.
create or replace function :"schema".event_streams(in_category text, in_after_type text, in_after_id text, in_rows integer)
returns table (aggregate_type text, aggregate_id text, version bigint, first_at timestamptz, last_at timestamptz)
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with recursive stream as (
    (
      select e.aggregate_type, e.aggregate_id, e.created_at, 1 as place
      from event as e
      -- (type, id, version) of the last stream's last event, or before the first of all.
      where (e.aggregate_type, e.aggregate_id, e.version) > (
          coalesce(in_after_type, in_category, ''), coalesce(in_after_id, ''),
          case when in_after_type is null then 0 else 9223372036854775807 end
        )
        and (in_category is null or e.aggregate_type = in_category)
      order by e.aggregate_type, e.aggregate_id, e.version
      limit 1
    )
    union all
    select n.aggregate_type, n.aggregate_id, n.created_at, s.place + 1
    from stream as s
    cross join lateral (
      select e.aggregate_type, e.aggregate_id, e.created_at
      from event as e
      where (e.aggregate_type, e.aggregate_id, e.version) > (s.aggregate_type, s.aggregate_id, 9223372036854775807)
        and (in_category is null or e.aggregate_type = in_category)
      order by e.aggregate_type, e.aggregate_id, e.version
      limit 1
    ) as n
    where s.place < in_rows
  )
  select s.aggregate_type, s.aggregate_id, l.version, s.created_at, l.created_at
  from stream as s
  cross join lateral (
    select e.version, e.created_at from event as e
    where e.aggregate_type = s.aggregate_type and e.aggregate_id = s.aggregate_id
    order by e.version desc
    limit 1
  ) as l
  order by s.place
$function$;

revoke execute on function :"schema".event_streams from public;
