-- Has sequences of live tables go on in those that were built to take their place (in_built[i] that of in_names[i]), so that numbers that
-- were given once are given to nothing else.
create or replace function :"schema".projection_keep_counting(in_names text[], in_built text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  counter record;
begin
  for counter in
    select s.live, s.own, p.built, t.attname, q.seqmax,
      -- A table that was made like the live one takes the numbers of a serial column from its sequence.
      exists (
        select from pg_attrdef as f join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
        where f.adrelid = n.attrelid and f.adnum = n.attnum and d.refclassid = 'pg_class'::regclass and d.refobjid = s.live
      ) as is_shared
    from unnest(in_names, in_built) as p (name, built)
    join pg_attribute as t on t.attrelid = to_regclass(p.name) and t.attnum > 0 and not t.attisdropped
    join pg_attribute as n on n.attrelid = to_regclass(p.built) and n.attname = t.attname and not n.attisdropped
    cross join lateral (
      select pg_get_serial_sequence(p.name, t.attname)::regclass as live, pg_get_serial_sequence(p.built, t.attname)::regclass as own
    ) as s
    left join pg_sequence as q on q.seqrelid = s.own and q.seqincrement > 0
    where s.live is not null
  loop
    if counter.is_shared then
      execute format('alter sequence %s owned by %s.%I', counter.live, counter.built, counter.attname);
    elsif
      pg_sequence_last_value(counter.live) > coalesce(pg_sequence_last_value(counter.own), 0)
      and pg_sequence_last_value(counter.live) <= counter.seqmax
    then
      perform setval(counter.own, pg_sequence_last_value(counter.live));
    end if;
  end loop;
end
$function$;

revoke execute on function :"schema".projection_keep_counting from public;
