-- One page of the log between two snapshots: rows that `target` sees and `base` does not, in the order of
-- their ids, after `after_id`. A reader goes from snapshot to snapshot with it.
--   target      null: the next tick behind the first row, so that a backlog is read in steps of some thousand
--               rows; the present snapshot where there is none
--   topics      null: all
--   row_limit   rows of the page at most
--   byte_limit  bytes of images and payloads after which the page ends; it holds one row at least
-- The last row returned is none of the log: its id is null, its payload tells of the page:
--   target      the second snapshot: the next pages of this pair ask for it
--   complete    no row of the pair is left: `target` is the next base
--   level       the pair reaches up to now
--   lost        rows behind `base` were removed by rotation
--   identity    what a position must agree with
--   topics      for each topic of the page, what its rows are decoded by (topic_signature)
--
-- A page costs the same at a backlog of thousands and of millions, because every row is found by the
-- index (topic, xid, id) and by nothing else. Hence: sequential and bitmap scans off (statistics of a
-- table that was never analyzed, or was just emptied, would ask for them); the range of xids is cut at
-- transactions that may be large (those that left a tick, the oldest that are open), and the former are
-- read one by one, in the order of the index; LIMIT in each branch, so that none is flattened into a join.
create or replace function :"schema".log_page(
  base txid_snapshot,
  target txid_snapshot,
  after_id bigint,
  topics bigint[],
  row_limit integer,
  byte_limit bigint
) returns setof :"schema".log
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan
as $function$
#variable_conflict use_variable
declare
  -- Each statement below sees at least what the one before saw: rows are looked for after this.
  present constant txid_snapshot := txid_current_snapshot();
  chosen constant bigint[] := coalesce(topics, array(select distinct t.id from topic as t));
  base_open constant bigint[] := array(select x from txid_snapshot_xip(base) as x);
  low bigint := txid_snapshot_xmax(base);
  upper txid_snapshot := coalesce(target, present);
  upper_open bigint[];
  high bigint;
  singles bigint[];
  cuts bigint[];
  starts bigint[];
  ends bigint[];
  line log%rowtype;
  lines integer := 0;
  bytes bigint := 0;
  met bigint[] := '{}';
  complete boolean := true;
  page record;
begin
  low := first_xid(chosen, low, present);
  if target is null and low is not null then
    upper := coalesce(next_tick(low, present), present);
  end if;
  upper_open := array(select x from txid_snapshot_xip(upper) as x);
  high := txid_snapshot_xmax(upper);
  singles := array(select x from unnest(base_open) as x where x <> all (upper_open));

  if low < high then
    cuts := array(select x from unnest(upper_open) as x where x >= low order by x limit 16) || tick_xids(low, high);
    singles := singles || array(select distinct x from unnest(tick_xids(low, high)) as x where x <> all (upper_open));
    cuts := array(select distinct x from unnest(cuts) as x order by x);
    select array_agg(r.low), array_agg(r.high) into starts, ends
    from unnest(low || array(select x + 1 from unnest(cuts) as x), cuts || high) as r (low, high)
    where r.low < r.high;
    -- What the ranges still hold of transactions that are open in `upper`.
    upper_open := array(select x from unnest(upper_open) as x where x >= low and x <> all (cuts));
  end if;

  if starts is not null or singles <> '{}' then
    for line in
      select c.* from (
        select b.* from unnest(chosen) as t (id) cross join unnest(starts, ends) as r (low, high) cross join lateral (
          (select l.* from log_0 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
          union all
          (select l.* from log_1 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
          union all
          (select l.* from log_2 as l where l.topic = t.id and l.xid >= r.low and l.xid < r.high and l.id > after_id and l.xid <> all (upper_open) order by l.id limit row_limit + 1)
        ) as b
        union all
        select b.* from unnest(chosen) as t (id) cross join unnest(singles) as s (xid) cross join lateral (
          (select l.* from log_0 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
          union all
          (select l.* from log_1 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
          union all
          (select l.* from log_2 as l where l.topic = t.id and l.xid = s.xid and l.id > after_id order by l.id limit row_limit + 1)
        ) as b
      ) as c
      order by c.id
      limit row_limit + 1
    loop
      bytes := bytes + coalesce(octet_length(line.old::text), 0) + coalesce(octet_length(line.new::text), 0)
        + coalesce(octet_length(line.payload::text), 0);
      if lines = row_limit or (lines > 0 and bytes > byte_limit) then
        complete := false;
        exit;
      end if;
      lines := lines + 1;
      if line.topic <> all (met) then
        met := met || line.topic;
      end if;
      return next line;
    end loop;
  end if;

  -- Asked after the rows were read: TRUNCATE is not transactional, but it waits for who has read, and
  -- who comes after it sees what it left in `installation`.
  select
    upper::text as target,
    complete,
    upper::text = present::text as level,
    -- Who was open at the last removal had written nothing to what was removed.
    txid_snapshot_xmax(base) > 1 and (i.truncated_xid >= txid_snapshot_xmax(base) or exists (
      select from unnest(base_open) as x where x <= i.truncated_xid and txid_visible_in_snapshot(x, i.truncated_snapshot)
    )) as lost,
    log_identity() as identity,
    (select json_object_agg(t.id, case when t.relation is null then '' else topic_signature(t.id) end)
      from (select distinct t.id, t.relation from topic as t where t.id = any (met)) as t) as topics
  into page
  from installation as i;
  line := null;
  line.payload := row_to_json(page);
  return next line;
end
$function$;

revoke execute on function :"schema".log_page from public;
