-- The first tick whose snapshot reaches beyond `low` and that `present` sees, as everybody else saw it: a snapshot taken inside of a
-- transaction does not count that transaction as open, and its rows must not be read by halves.
--
-- That `present` sees it matters: the writer of such a tick had committed before `present`, so the tick's
-- snapshot is the older one. A tick that was committed since may see transactions that are open in
-- `present`, which first_xid has stepped over: their rows would be lost.
create or replace function :"schema".next_tick(low bigint, present txid_snapshot) returns txid_snapshot
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select case
    when t.xid >= txid_snapshot_xmax(t.snapshot) then t.snapshot
    else concat_ws(':',
      least(t.xid, txid_snapshot_xmin(t.snapshot)),
      txid_snapshot_xmax(t.snapshot),
      (select string_agg(x::text, ',' order by x) from (select txid_snapshot_xip(t.snapshot) union select t.xid) as o (x))
    )::txid_snapshot
  end
  from tick as t
  where txid_snapshot_xmax(t.snapshot) > low and txid_visible_in_snapshot(t.xid, present)
  order by txid_snapshot_xmax(t.snapshot)
  limit 1
$function$;

revoke execute on function :"schema".next_tick from public;
