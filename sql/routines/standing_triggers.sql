-- The triggers that capture a topic, wherever they are: also on tables that have left its tree since.
-- Without the clones on partitions, which go with the root's.
create or replace function :"schema".standing_triggers(topic bigint)
returns table (relation oid, name text)
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select t.tgrelid, t.tgname::text
  from pg_trigger as t
  join pg_proc as p on p.oid = t.tgfoid
  where not t.tgisinternal
    and p.pronamespace = (select c.relnamespace from pg_class as c where c.oid = 'log'::regclass)
    -- Arguments are stored as text after text, each ended by a zero byte.
    and split_part(encode(t.tgargs, 'escape'), '\000', 1) = $1::text
    and not exists (
      select from pg_depend as d
      where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
        and d.refclassid = 'pg_trigger'::regclass and d.deptype in ('P', 'S', 'I')
    )
$function$;

revoke execute on function :"schema".standing_triggers from public;
