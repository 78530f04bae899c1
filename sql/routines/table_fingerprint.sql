-- Changes when the rows of a captured table may have changed without a trigger telling (partitions
-- attached, detached, dropped, truncated), when its name, columns, their types, key or policies did, or when its capture did.
-- PL/pgSQL, because it keeps its plan: as a SQL function it would be planned at each call.
create or replace function :"schema".table_fingerprint(table_oid oid) returns text
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  types text;
begin
  -- Labels of an enum and attributes of a composite change what every row shows. 16384: the first oid that is not the
  -- server's own. Few tables have such types, and the others are spared this.
  if exists (select from pg_attribute as a where a.attrelid = table_oid and a.atttypid >= 16384 and not a.attisdropped) then
    types := (
      with recursive used (type) as (
        select a.atttypid from pg_attribute as a where a.attrelid = table_oid and a.atttypid >= 16384 and not a.attisdropped
        union
        select n.type from used as u
        cross join lateral (
          select case t.typtype when 'd' then t.typbasetype else t.typelem end from pg_type as t where t.oid = u.type
          union all
          select a.atttypid from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid
          where t.oid = u.type and a.attnum > 0 and not a.attisdropped
        ) as n (type)
        where n.type >= 16384
      )
      select string_agg(concat_ws(' ', u.type,
        (select string_agg(concat_ws(' ', e.oid, e.enumlabel), ',' order by e.oid) from pg_enum as e where e.enumtypid = u.type),
        (select string_agg(concat_ws(' ', a.attnum, a.attname, a.xmin), ',' order by a.attnum)
          from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid where t.oid = u.type and a.attnum > 0)
      ), ',' order by u.type) from used as u
    );
  end if;
  return (
    select md5(concat_ws('|',
      -- Installed anew: what was written before has no place in this log.
      (select i.id from installation as i),
      (select concat_ws(' ', c.relnamespace, c.relname, c.relrowsecurity, c.relforcerowsecurity) from pg_class as c where c.oid = table_oid),
      (select string_agg(concat_ws(' ', p.oid, p.xmin), ',' order by p.oid) from pg_policy as p where p.polrelid = table_oid),
      -- xmin: a column may have got other values without another type (ALTER COLUMN … TYPE … USING, SET EXPRESSION).
      (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.xmin), ',' order by a.attnum)
        from pg_attribute as a where a.attrelid = table_oid and a.attnum > 0 and not a.attisdropped),
      types,
      (select i.indkey::text from pg_index as i where i.indrelid = table_oid and i.indisprimary),
      -- A partition that came later has no trigger on TRUNCATE (32), which gives it another file.
      (select string_agg(concat_ws(' ', t.relation, c.relfilenode), ',' order by t.relation)
        from table_tree(table_oid) as t
        left join pg_class as c on c.oid = t.relation and not t.is_root
          and not exists (select from pg_trigger as g where g.tgrelid = t.relation and g.tgtype & 32 <> 0)),
      (select string_agg(i.inhparent::text, ',' order by i.inhparent) from pg_inherits as i where i.inhrelid = table_oid),
      (select concat_ws(' ', t.id, t.captured, t.rows, t.exclude, t.filter, t.wake, t.key_columns) from topic as t where t.relation = table_oid),
      (select string_agg(concat_ws(' ', g.tgrelid, g.tgname, g.tgenabled), ',' order by g.tgrelid, g.tgname)
        from pg_trigger as g join pg_proc as p on p.oid = g.tgfoid
        where g.tgrelid in (select t.relation from table_tree(table_oid) as t)
          and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass))
    ))
  );
end
$function$;

revoke execute on function :"schema".table_fingerprint from public;
