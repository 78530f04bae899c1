-- A snapshot that sees nothing of what is still in the log, and that log_page() knows to be lost when rotation removes some of
-- it. In the rare case that there is none (rows older than what was removed last are still there): one that is never lost.
create or replace function :"schema".log_beginning() returns txid_snapshot
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  -- Taken first: whoever is open now and has not been seen below is not below it.
  present constant txid_snapshot := txid_current_snapshot();
  lowest bigint;
begin
  select least(min(f.xid), txid_snapshot_xmin(present)) into lowest
  from (select distinct t.id from topic as t) as t
  cross join lateral (select l.xid from log as l where l.topic = t.id order by l.xid limit 1) as f;
  lowest := coalesce(lowest, txid_snapshot_xmin(present));
  if lowest <= (select i.truncated_xid from installation as i) then
    return '1:1:';
  end if;
  return format('%s:%s:', lowest, lowest)::txid_snapshot;
end
$function$;

revoke execute on function :"schema".log_beginning from public;
