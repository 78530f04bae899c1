-- Writes the old and new images of the rows that one UPDATE changed to the log: plain tables, full
-- images. See capture_insert for what the three functions have in common.
create or replace function :"schema".capture_update() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
-- row_to_json prints ranges, intervals and floats as the session is set.
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
as $function$
-- A captured table may have columns of any name: tg_relid is ours, and n.* is never a column n.
#variable_conflict use_variable
declare
  written bigint;
begin
  -- The executor puts the old and the new version of a row into the two transition tables in one step:
  -- equal ordinals are the same row, also when its key changed. FULL JOIN: never a nested loop, whatever
  -- number of rows the cached plan was made for.
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  else
    insert into log_2 (topic, operation, old, new)
    select tg_relid, 'u', o.image, n.image
    from (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_old as r) as o
    full join (select row_to_json(r.*) as image, row_number() over () as ordinal from trunkline_new as r) as n
      using (ordinal)
    order by ordinal;
  end if;
  get diagnostics written = row_count;

  -- In one expression: is there anything left to do? See capture_insert.
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
end
$function$;

revoke execute on function :"schema".capture_update from public;
