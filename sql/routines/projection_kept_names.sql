-- Names of indexes and sequences of live tables, by oid of those that take their place in the tables that were built (in_built[i] that of
-- in_names[i]): of indexes that are the same, and sequences of the same column.
create or replace function :"schema".projection_kept_names(in_names text[], in_built text[]) returns jsonb
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with place as (
    select p.number, s.side, to_regclass(s.name) as id, s.name
    from unnest(in_names, in_built) with ordinality as p (name, built, number)
    cross join lateral (values ('live', p.name), ('built', p.built)) as s (side, name)
  ), part as (
    select p.number, p.side, c.oid as id, c.relname as name, l.likeness,
      row_number() over (partition by p.number, p.side, l.likeness order by c.relname) as nth
    from place as p
    join pg_index as x on x.indrelid = p.id
    join pg_class as c on c.oid = x.indexrelid
    cross join lateral (
      select concat_ws(' ', x.indisunique, x.indisprimary, x.indisexclusion, regexp_replace(pg_get_indexdef(c.oid), '^.*? USING ', '')) as likeness
    ) as l
    union all
    select p.number, p.side, c.oid, c.relname, 'sequence of ' || t.attname, 1
    from place as p
    join pg_attribute as t on t.attrelid = p.id and t.attnum > 0 and not t.attisdropped
    join pg_class as c on c.oid = pg_get_serial_sequence(p.name, t.attname)::regclass
  )
  select coalesce(jsonb_object_agg(b.id::text, l.name), '{}')
  from part as l join part as b using (number, likeness, nth)
  where l.side = 'live' and b.side = 'built'
$function$;

revoke execute on function :"schema".projection_kept_names from public;
