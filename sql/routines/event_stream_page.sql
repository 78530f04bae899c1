-- Events of a stream from one version to another (both included), forward or backward: a page of at most in_rows, and of no further
-- ones once their payloads, as they are stored, have in_bytes. events: as event_page() gives them, always in the order of versions;
-- null where there are none. is_last: nothing comes after them.
--
-- Forward, and where no payload is large, as is usual, in one pass. Else sizes are looked at first, which reads no payload that is
-- stored out of line.
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
  out count integer,
  -- Version of the last event in the direction of reading; null where there are none.
  out edge bigint,
  out is_last boolean
)
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
-- Planning for each page would cost more than it finds: the index serves any range.
set plan_cache_mode = force_generic_plan
as $function$
#variable_conflict use_column
declare
  -- What the server moves out of line, or compresses and leaves (TOAST_TUPLE_THRESHOLD), is larger than this.
  small constant bigint := 2000;
  large bigint;
  total bigint;
  bytes bigint;
  low bigint;
  high bigint;
  is_dense boolean;
begin
  if not in_backward and in_rows * small <= in_bytes then
    select count(*), count(*) filter (where e.bytes > small), min(e.version), max(e.version), concat(
      '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'), '"],', min(e.version), ',', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(case when e.bytes <= small then e.payload::text end, ','), ']]'
    )
    into total, large, low, high, events
    from (
      select e.*, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit in_rows
    ) as e;
    if large = 0 and (total = 0 or high - low + 1 = total) then
      count := total;
      edge := high;
      is_last := total < in_rows;
      events := case when total > 0 then events end;
      return;
    end if;
    events := null;
  end if;

  if in_backward then
    select count(*), sum(b.bytes), min(b.version), max(b.version) into total, bytes, low, high
    from (
      select e.version, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version desc
      limit in_rows
    ) as b;
  else
    select count(*), sum(b.bytes), min(b.version), max(b.version) into total, bytes, low, high
    from (
      select e.version, pg_column_size(e.payload) as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between in_from and in_to
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
      limit in_rows
    ) as b;
  end if;
  is_last := total < in_rows;
  if bytes >= in_bytes then
    -- One event at least, and the one with which it is too much.
    select count(*), min(b.version), max(b.version), is_last and count(*) = total into total, low, high, is_last
    from (
      select e.version, sum(pg_column_size(e.payload)) over w as bytes
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between low and high
        and (in_as_of is null or e.created_at <= in_as_of)
      window w as (order by case when in_backward then -e.version else e.version end rows between unbounded preceding and 1 preceding)
    ) as b
    where coalesce(b.bytes, 0) < in_bytes;
  end if;

  count := total;
  edge := case when in_backward then low else high end;
  if total > 0 then
    is_dense := high - low + 1 = total;
    select concat(
      '[["', string_agg(e.id::text, '","'), '"],["', string_agg(e.position::text, '","'), '"],',
      case when is_dense then low::text
        else '"' || encode(string_agg(case when not is_dense then int8send(e.version) end, ''), 'hex') || '"' end,
      ',', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(e.payload::text, ','), ']]'
    )
    into events
    from (
      select *
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id and e.version between low and high
        and (in_as_of is null or e.created_at <= in_as_of)
      order by e.version
    ) as e;
  end if;
end
$function$;

revoke execute on function :"schema".event_stream_page from public;
