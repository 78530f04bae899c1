-- Drops the live tables and gives their names and rights to those that were built: in_built[i] becomes in_names[i]. in_old: all tables
-- of the build that retires. All as SQL writes them. The caller's rights count.
create or replace function :"schema".projection_swap_tables(in_names text[], in_built text[], in_old text[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  present constant text[] := array(select o from unnest(in_old || in_names) as o where to_regclass(o) is not null group by o order by o);
  right_ record;
  pair record;
  part record;
  -- Names to be kept of the live tables' indexes and sequences, by oid of those that take their place.
  kept jsonb;
begin
  if present <> '{}' then
    execute 'lock table ' || array_to_string(present, ', ') || ' in access exclusive mode';
  end if;
  for right_ in
    select p.built as target, a.privilege_type, a.is_grantable, a.grantee, '' as kind, '' as part
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    cross join lateral aclexplode(c.relacl) as a
    where a.grantee <> c.relowner
    union all
    select p.built, a.privilege_type, a.is_grantable, a.grantee, '', format(' (%I)', t.attname)
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    join pg_attribute as t on t.attrelid = c.oid and not t.attisdropped
    cross join lateral aclexplode(t.attacl) as a
    where exists (select from pg_attribute as n where n.attrelid = to_regclass(p.built) and n.attname = t.attname)
    union all
    -- Sequences of serial columns.
    select n.sequence, a.privilege_type, a.is_grantable, a.grantee, 'sequence ', ''
    from unnest(in_names, in_built) as p (name, built)
    join pg_class as c on c.oid = to_regclass(p.name)
    join pg_attribute as t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
    join pg_class as q on q.oid = pg_get_serial_sequence(p.name, t.attname)::regclass
    cross join lateral aclexplode(q.relacl) as a
    cross join lateral (
      select pg_get_serial_sequence(p.built, m.attname) as sequence from pg_attribute as m
      where m.attrelid = to_regclass(p.built) and m.attname = t.attname and not m.attisdropped
    ) as n
    where a.grantee <> q.relowner and n.sequence is not null
  loop
    execute format(
      'grant %s%s on %s%s to %s%s',
      right_.privilege_type, right_.part, right_.kind, right_.target,
      case when right_.grantee = 0 then 'public' else right_.grantee::regrole::text end,
      case when right_.is_grantable then ' with grant option' else '' end
    );
  end loop;
  perform projection_keep_counting(in_names, in_built);
  kept := projection_kept_names(in_names, in_built);
  if present <> '{}' then
    execute 'drop table ' || array_to_string(present, ', ');
  end if;
  for pair in
    select c.oid, c.relname as built_name, p.built, (parse_ident(p.name))[cardinality(parse_ident(p.name))] as name, c.relnamespace
    from unnest(in_names, in_built) as p (name, built) join pg_class as c on c.oid = to_regclass(p.built)
  loop
    execute format('alter table %s rename to %I', pair.built, pair.name);
    -- Names that are kept, or were made of the table's and are so again, where they are free.
    for part in
      select i.relname, n.nspname, case i.relkind when 'S' then 'sequence' else 'index' end as kind, w.name
      from pg_class as i join pg_namespace as n on n.oid = i.relnamespace
      cross join lateral (
        select coalesce(kept ->> i.oid::text, case when starts_with(i.relname, pair.built_name) then pair.name || substr(i.relname, 1 + length(pair.built_name)) end)
      ) as w (name)
      where w.name <> i.relname and octet_length(w.name) < 64 and (
        i.oid in (select x.indexrelid from pg_index as x where x.indrelid = pair.oid)
        or i.relkind = 'S' and exists (
          select from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = i.oid and d.refobjid = pair.oid and d.deptype in ('a', 'i')
        )
      )
      order by kept ->> i.oid::text nulls last
    loop
      if to_regclass(format('%I.%I', part.nspname, part.name)) is null then
        execute format('alter %s %I.%I rename to %I', part.kind, part.nspname, part.relname, part.name);
      end if;
    end loop;
    for part in
      select k.conname, pair.name || substr(k.conname, 1 + length(pair.built_name)) as name
      from pg_constraint as k where k.conrelid = pair.oid and k.conindid = 0 and starts_with(k.conname, pair.built_name)
    loop
      if octet_length(part.name) < 64 and not exists (select from pg_constraint as k where k.conrelid = pair.oid and k.conname = part.name) then
        execute format('alter table %s rename constraint %I to %I', pair.oid::regclass, part.conname, part.name);
      end if;
    end loop;
  end loop;
end
$function$;

revoke execute on function :"schema".projection_swap_tables from public;
