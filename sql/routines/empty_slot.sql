-- Empties one child of the log, unless a durable reader that is alive still needs rows of it, a
-- transaction that wrote to it is open, or somebody reads it for longer than the lock timeout.
create or replace function :"schema".empty_slot(candidate integer, hold interval) returns boolean
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  last_xid bigint;
  needed boolean;
begin
  begin
    execute format('lock table log_%s in access exclusive mode', candidate);
  exception when lock_not_available then
    return false;
  end;
  -- By the index, topic by topic: the child may hold millions of rows.
  execute format(
    'select max(l.xid) from (select distinct t.id from topic as t) as t cross join lateral '
    || '(select l.xid from log_%s as l where l.topic = t.id order by l.xid desc limit 1) as l',
    candidate
  ) into last_xid;
  -- A reader needs what it has not seen: later transactions, and those that were open when it looked.
  execute format(
    'select exists (select from reader as r cross join (select distinct t.id from topic as t) as t '
    || 'where r.updated_at > now() - $1 and ('
    || 'exists (select from log_%1$s as l where l.topic = t.id and l.xid >= txid_snapshot_xmax(r.snapshot)) '
    || 'or exists (select from txid_snapshot_xip(r.snapshot) as x where exists ('
    || 'select from log_%1$s as l where l.topic = t.id and l.xid = x))))',
    candidate
  ) using hold into needed;
  if needed then
    return false;
  end if;
  execute format('truncate log_%s', candidate);
  if last_xid is not null then
    update installation set truncated_xid = greatest(truncated_xid, last_xid), truncated_snapshot = txid_current_snapshot();
  end if;
  update slot as s set opened_at = null, closed_at = null where s.slot = candidate;
  return true;
end
$function$;

revoke execute on function :"schema".empty_slot from public;
