-- What of a relay is not yet done of all that a snapshot sees: slots that have not reached it, and stored deliveries that are
-- to be attempted again, those redriven among them (what waits behind a dead letter that holds its key is not).
create or replace function :"schema".relay_behind(in_relay text, target txid_snapshot, out slots integer, out retries integer)
language sql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select
    (select count(*)::integer from relay_place as s where s.relay = in_relay and (
      txid_snapshot_xmax(s.snapshot) < txid_snapshot_xmax(target)
      or txid_snapshot_xmax(s.snapshot) = txid_snapshot_xmax(target)
        and (select count(*) from txid_snapshot_xip(s.snapshot)) > (select count(*) from txid_snapshot_xip(target))
    )),
    (select count(*)::integer from failed_delivery as d where d.relay = in_relay and d.state in ('retry', 'redrive') and not exists (
      select from failed_delivery as h
      where h.relay = in_relay and h.slot = d.slot and h.topic = d.topic and hashtextextended(h.key, 0) = hashtextextended(d.key, 0) and h.key = d.key and h.id < d.id and h.holds and h.state = 'dead'
    ))
$function$;

revoke execute on function :"schema".relay_behind from public;
