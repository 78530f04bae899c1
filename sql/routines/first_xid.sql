-- The lowest xid of rows of the topics that can be read, from `low` on; null: there is none. Steps over
-- the oldest open transactions: one of them may have written millions of rows that nobody can see yet,
-- and the index would be searched through all of them.
create or replace function :"schema".first_xid(topics bigint[], low bigint, present txid_snapshot) returns bigint
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  start bigint := low;
  stop bigint;
  found_xid bigint;
begin
  foreach stop in array array(select x from txid_snapshot_xip(present) as x where x >= low order by x limit 16) || txid_snapshot_xmax(present)
  loop
    if start < stop then
      select min(f.xid) into found_xid
      from unnest(topics) as t (id)
      cross join lateral (
        (select l.xid from log_0 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
        union all
        (select l.xid from log_1 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
        union all
        (select l.xid from log_2 as l where l.topic = t.id and l.xid >= start and l.xid < stop order by l.xid limit 1)
      ) as f;
      exit when found_xid is not null;
    end if;
    start := stop + 1;
  end loop;
  return found_xid;
end
$function$;

revoke execute on function :"schema".first_xid from public;
