-- The topic row that capture() is asked for, or an error that names the argument that is wrong.
create or replace function :"schema".checked_topic(target regclass, label text, rows text, exclude text[], filter text, wake text)
returns :"schema".topic
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_variable
declare
  spec topic%rowtype;
  unknown text;
begin
  if rows is null or rows not in ('full', 'keys') then
    raise exception using errcode = 'TL005', message = format('rows is %L, expected ''full'' or ''keys''', rows),
      hint = 'full: old and new images (relays, shapes); keys: key and operation only (caches, mirrors).';
  end if;
  if wake not in ('elided', 'always', 'off') then
    raise exception using errcode = 'TL005', message = format('wake is %L, expected ''elided'', ''always'' or ''off''', wake),
      hint = 'Leave it out to use the installation''s.';
  end if;
  if not has_table_privilege(target, 'TRIGGER') then
    raise exception using errcode = 'TL003', message = format('role %I may not create triggers on %s', current_user, label),
      hint = format('Run as its owner, or: grant trigger on %s to %I.', target, current_user);
  end if;
  spec.relation := target;
  spec.name := label;
  spec.rows := rows;
  spec.wake := wake;
  spec.filter := nullif(btrim(filter), '');
  spec.exclude := coalesce((select array_agg(distinct e order by e) from unnest(exclude) as e), '{}');
  -- An inheritance tree has no key of its own: the parent's does not bind the children.
  spec.key_columns := coalesce((
    select array_agg(a.attname::text order by k.place)
    from pg_index as i
    cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, place)
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    -- What it INCLUDEs is carried along, and tells no rows apart.
    where i.indrelid = target and i.indisprimary and k.place <= i.indnkeyatts
      and not exists (select from pg_inherits as h join pg_class as c on c.oid = h.inhparent where h.inhparent = target and c.relkind <> 'p')
  ), '{}');

  select e into unknown from unnest(spec.exclude) as e
  where not exists (select from pg_attribute as a where a.attrelid = target and a.attname = e and a.attnum > 0 and not a.attisdropped)
  limit 1;
  if unknown is not null then
    raise exception using errcode = 'TL004', message = format('exclude names %L, which is no column of %s', unknown, label),
      hint = 'Its columns: ' || (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute as a where a.attrelid = target and a.attnum > 0 and not a.attisdropped) || '.';
  end if;
  if spec.key_columns && spec.exclude then
    raise exception using errcode = 'TL005', message = format('exclude names %L, a column of the primary key of %s',
        (select e from unnest(spec.exclude) as e where e = any (spec.key_columns) limit 1), label),
      hint = 'Readers could not tell rows apart. Leave the key in.';
  end if;
  if rows = 'keys' and spec.key_columns = '{}' then
    raise exception using errcode = 'TL005', message = format('%s has no primary key, rows cannot be ''keys''', label),
      hint = 'Add a primary key, or capture it with rows => ''full''.';
  end if;
  if spec.filter is not null then
    begin
      execute format('select 1 from %s as r where (%s) limit 0', target, spec.filter);
    exception when others then
      raise exception using errcode = 'TL006', message = format('the filter of %s is not a condition over its columns: %s', label, sqlerrm),
        hint = 'Write what could stand after WHERE, for example: amount > 0 and country = ''KR''.';
    end;
  end if;
  return spec;
end
$function$;

revoke execute on function :"schema".checked_topic from public;
