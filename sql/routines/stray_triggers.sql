-- Triggers of trunkline that no capture wants, on a table and those below it, or anywhere: left by a restore, where tables
-- have other oids, by a renaming, or by a capture under other rules. Rows would be written twice, or of a table that
-- nobody captures. Without the clones on partitions, which go with the root's.
create or replace function :"schema".stray_triggers(root oid default null) returns table (relation oid, name text)
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with home as (
    select c.relnamespace as oid from pg_class as c where c.oid = 'log'::regclass
  )
  select t.tgrelid, t.tgname::text
  from pg_trigger as t
  join pg_class as c on c.oid = t.tgrelid
  join pg_proc as p on p.oid = t.tgfoid
  join home as h on h.oid = p.pronamespace and h.oid <> c.relnamespace
  where not t.tgisinternal
    and (root is null or t.tgrelid in (select m.relation from table_tree(root) as m))
    and not exists (
      select from pg_depend as d
      where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
        and d.refclassid = 'pg_trigger'::regclass and d.deptype in ('P', 'S', 'I')
    )
    and not exists (
      select from topic as k
      cross join lateral wanted_triggers(k) as w
      -- Arguments are stored as text after text, each ended by a zero byte.
      where k.captured and k.id::text = split_part(encode(t.tgargs, 'escape'), '\000', 1)
        and w.relation = t.tgrelid and w.name = t.tgname::text
    )
$function$;

revoke execute on function :"schema".stray_triggers from public;
