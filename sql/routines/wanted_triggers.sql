-- The triggers that a captured table must have, as rows: the table, the trigger's name, its definition
-- up to EXECUTE, its function and its arguments. capture() creates what is missing of them, doctor
-- compares.
create or replace function :"schema".wanted_triggers(spec :"schema".topic)
returns table (relation oid, name text, event text, function_name text, arguments text[])
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with root as (
    select
      c.oid,
      c.relkind,
      -- Rows that are reached by more than one name need row triggers.
      c.relkind = 'p' or exists (select from pg_inherits as i where c.oid in (i.inhrelid, i.inhparent)) as by_row,
      exists (select from pg_inherits as i where i.inhparent = c.oid) and c.relkind <> 'p' as is_inherited,
      -- With the topic: a partition may be captured by itself and with its root. At most 63 bytes.
      (
        select case when octet_length(n.nspname) <= 24 then n.nspname else left(md5(n.nspname), 24) end
        from pg_class as l join pg_namespace as n on n.oid = l.relnamespace
        where l.oid = 'log'::regclass
      ) || '_capture_' || spec.id as prefix,
      case when spec.rows = 'keys' or spec.exclude <> '{}' or spec.filter is not null
        -- A virtual column has to be computed.
        or exists (select from pg_attribute as a where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped)
        then 'capture_custom' end as custom,
      case when spec.rows = 'keys' and spec.filter is null then 'capture_keys_' || spec.id end as keyed
    from pg_class as c
    where c.oid = spec.relation
  ),
  events as (
    select r.oid as relation, r.prefix || '_' || e.suffix as name, e.event,
      coalesce(r.keyed, r.custom, 'capture_' || e.suffix) as function_name, 't' as truncated
    from root as r
    cross join (values
      ('insert', 'after insert on %s referencing new table as trunkline_new for each statement'),
      -- PostgreSQL 12 crashes on a row that moves between partitions when an UPDATE trigger names only one.
      ('update', 'after update on %s referencing old table as trunkline_old new table as trunkline_new for each statement'),
      ('delete', 'after delete on %s referencing old table as trunkline_old for each statement')
    ) as e (suffix, event)
    where not r.by_row
    union all
    -- A partitioned root hands its row trigger down; members of an inheritance tree each need one.
    select t.relation, r.prefix || '_row', 'after insert or update or delete on %s for each row', coalesce(r.custom, 'capture_row'), 't'
    from root as r
    cross join table_tree(r.oid) as t
    where r.by_row and (t.is_root or r.is_inherited)
    union all
    -- TRUNCATE of a partition or of one member of a tree leaves rows of the root in place: 'x', not 't'.
    select t.relation, r.prefix || '_truncate', 'after truncate on %s for each statement', 'capture_truncate',
      case when t.is_root and not r.is_inherited then 't' else 'x' end
    from root as r
    cross join table_tree(r.oid) as t
  )
  select e.relation, e.name, e.event, e.function_name,
    array[
      spec.id::text,
      coalesce(spec.wake, ''),
      i.lock_class::text,
      wake_key(spec.id)::text,
      i.channel,
      e.truncated
    ]
    -- A topic with other rules has other triggers: they are created anew, which waits for the writers that
    -- follow the old ones.
    || case when e.function_name ~ '^capture_(custom|keys_)' then array[topic_rules(spec)] else array[''] end
    || case when spec.wake is not null then array[spec.wake] else '{}' end
  from events as e
  cross join installation as i
$function$;

revoke execute on function :"schema".wanted_triggers from public;
