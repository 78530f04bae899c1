-- The statement that creates the trigger function of one plain table with `rows => 'keys'` and no
-- filter: as capture_insert, _update and _delete, with the key's columns by name, which is much cheaper
-- than to look them up at each write.
--
-- It must not fail when one of them is renamed or dropped. A name that the transition table does not have
-- is looked for outside of it, and found in `f`, where it is null; a key is never null; so the image is
-- null, and an 'x' row tells readers to take a fresh copy until the table is captured anew.
create or replace function :"schema".keys_function(spec :"schema".topic, place name) returns text
language plpgsql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  fallback constant text := (select string_agg(format('null::text as %I', k), ', ') from unnest(spec.key_columns) as k);
  columns constant text := (select string_agg(format('%I', k), ', ') from unnest(spec.key_columns) as k);
  present constant text := (select string_agg(format('k.%I is not null', k), ' and ') from unnest(spec.key_columns) as k);
  side constant text := format(
    'select case when %s then row_to_json(k.*) end as image%%s from (select %s) as f cross join lateral (select %s from %%s) as k',
    present, fallback, columns
  );
  numbered constant text := ', row_number() over () as ordinal';
  one_sided constant text := format($$insert into %%s (topic, operation, %%s)
      select %s, case when s.image is null then 'x' else %%L end, s.image from (%%s) as s;$$, spec.id);
  paired constant text := format($$insert into %%s (topic, operation, old, new)
      select %s, case when o.image is null or n.image is null then 'x' else 'u' end,
        case when n.image is not null and o.image::text <> n.image::text then o.image end,
        case when o.image is not null then n.image end
      from (%s) as o full join (%s) as n using (ordinal)
      order by ordinal;$$, spec.id, format(side, numbered, 'trunkline_old'), format(side, numbered, 'trunkline_new'));
  writes constant text := (
    select string_agg(format($$
  %s tg_op = %L and log_slot() = %s then
    %s$$, case when o.place = 1 and s.slot = 0 then 'if' else 'elsif' end, o.operation, s.slot,
      case o.operation
        when 'INSERT' then format(one_sided, 'log_' || s.slot, 'new', 'i', format(side, '', 'trunkline_new'))
        when 'DELETE' then format(one_sided, 'log_' || s.slot, 'old', 'd', format(side, '', 'trunkline_old'))
        else format(paired, 'log_' || s.slot)
      end), '' order by o.place, s.slot)
    from unnest(array['INSERT', 'UPDATE', 'DELETE']) with ordinality as o (operation, place)
    cross join generate_series(0, 2) as s (slot)
  );
begin
  return format(
    'create or replace function %I.%I() returns trigger language plpgsql security definer '
    || 'set search_path = pg_catalog, %I, pg_temp set datestyle = ''ISO'' set intervalstyle = ''postgres'' '
    || 'set extra_float_digits = 1 as %L',
    place, 'capture_keys_' || spec.id, place,
    -- A key's column may have any name, also that of a variable.
    '#variable_conflict use_column
declare
  written bigint;
begin' || writes || $$
  end if;
  get diagnostics written = row_count;
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end$$
  );
end
$function$;

revoke execute on function :"schema".keys_function from public;
