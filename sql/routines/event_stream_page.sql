-- Events of a stream from one version to another (both included), forward or backward, as a JSON list of event_line_short(): at
-- most in_rows, and no further ones once their payloads, as they are stored, have in_bytes. events is null where there are none;
-- is_last: nothing comes after them.
--
-- Sizes are looked at first, which reads no payload that is stored out of line. The aggregate takes its rows as the ordered
-- subquery gives them: an ORDER BY of its own would sort them once more.
create or replace function :"schema".event_stream_page(
  in_type text,
  in_id text,
  in_from bigint,
  in_to bigint,
  in_as_of timestamptz,
  in_backward boolean,
  in_rows integer,
  in_bytes bigint,
  out events text,
  out is_last boolean
)
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  found_rows bigint;
  fitting bigint;
begin
  if in_backward then
    select count(*), 1 + count(*) filter (where b.bytes < in_bytes) into found_rows, fitting
    from (
      select sum(pg_column_size(e.payload)) over (order by e.version desc rows unbounded preceding) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version desc
      limit in_rows
    ) as b;
    select '[' || string_agg(event_line_short(e), ',') || ']' into events
    from (
      select *
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version desc
      limit least(in_rows, fitting)
    ) as e;
  else
    select count(*), 1 + count(*) filter (where b.bytes < in_bytes) into found_rows, fitting
    from (
      select sum(pg_column_size(e.payload)) over (order by e.version rows unbounded preceding) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit in_rows
    ) as b;
    select '[' || string_agg(event_line_short(e), ',') || ']' into events
    from (
      select *
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit least(in_rows, fitting)
    ) as e;
  end if;
  is_last := found_rows < in_rows and fitting > found_rows;
end
$function$;

revoke execute on function :"schema".event_stream_page from public;
