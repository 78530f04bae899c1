-- Captures a table: installs its triggers. Idempotent: what stands already is left alone, and takes no
-- lock. Returns the topic's id.
--   rows     'full': old and new images; 'keys': key and operation only, for caches and mirrors
--   exclude  columns whose values never enter the log
--   filter   SQL over the table's columns; rows for which it does not hold are not captured
--   wake     'elided', 'always' or 'off' for this table; null: as the installation (set_wake)
-- Locks: SHARE ROW EXCLUSIVE on the table while triggers are created, which waits for open writers
-- and lets new ones wait: set lock_timeout and try again where that matters (the runtime does).
create or replace function :"schema".capture(
  table_name text,
  rows text default 'full',
  exclude text[] default '{}',
  filter text default null,
  wake text default null
) returns bigint
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  place constant text := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'log'::regclass);
  target constant regclass := find_table(capture.table_name);
  label constant text := (select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = target);
  previous topic%rowtype;
  spec topic%rowtype;
  standing record;
  missing record;
  changed boolean := false;
begin
  perform pg_advisory_xact_lock(hashtextextended('trunkline capture', target::oid::bigint));
  select * into previous from topic as t where t.relation = target;
  spec := checked_topic(target, label, capture.rows, capture.exclude, capture.filter, capture.wake);

  if previous.id is null then
    -- So that a trigger knows its topic without an argument to cast.
    spec.id := target::oid::bigint;
    insert into topic (id, name, relation, captured, rows, exclude, filter, wake, key_columns)
    values (spec.id, spec.name, spec.relation, true, spec.rows, spec.exclude, spec.filter, spec.wake, spec.key_columns);
  else
    spec.id := previous.id;
    update topic as t
    set name = spec.name, captured = true, rows = spec.rows, exclude = spec.exclude, filter = spec.filter, wake = spec.wake,
      key_columns = spec.key_columns
    where t.relation = target
      and (t.name, t.captured, t.rows, t.exclude, t.filter, t.wake, t.key_columns)
        is distinct from (spec.name, true, spec.rows, spec.exclude, spec.filter, spec.wake, spec.key_columns);
  end if;

  -- A table that got a child, say, is captured by row from now on: what it had would write rows twice. So would what
  -- a restore brought with it.
  for standing in
    (
      select s.relation, s.name from standing_triggers(spec.id) as s
      except
      select w.relation, w.name from wanted_triggers(spec) as w
    )
    union
    select s.relation, s.name from stray_triggers(target) as s
  loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
    changed := true;
  end loop;
  for standing in select m.relation, m.name from missing_triggers(spec) as m where m.stands loop
    execute format('drop trigger %I on %s', standing.name, standing.relation::regclass);
    changed := true;
  end loop;
  if changed or exists (select from missing_triggers(spec)) then
    perform install_keys_function(spec);
  end if;
  for missing in select * from missing_triggers(spec) loop
    changed := true;
    execute format(
      'create trigger %I ' || missing.event || ' execute function %I.%I(%s)',
      missing.name, missing.relation::regclass, place, missing.function_name,
      (select string_agg(quote_literal(a), ', ') from unnest(missing.arguments) as a)
    );
  end loop;
  -- Who creates or attaches a partition must be allowed to call what its clone of the row trigger calls.
  for missing in
    select distinct c.relowner::regrole as owner, w.function_name
    from wanted_triggers(spec) as w
    join pg_class as c on c.oid = w.relation and c.relkind = 'p'
    join pg_proc as p on p.proname = w.function_name and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass)
    where not has_function_privilege(c.relowner, p.oid, 'EXECUTE')
  loop
    execute format('grant execute on function %I.%I to %s', place, missing.function_name, missing.owner);
  end loop;
  -- Rows may have changed while nobody captured them, or under other rules: readers take a fresh copy.
  if changed and previous.id is not null then
    perform write_log(spec.id, array['x'], array[null::json], array[null::json]);
  end if;
  if changed then
    perform pg_notify(i.channel, '') from installation as i where wake_mode() <> 'off' and spec.wake is distinct from 'off';
  end if;
  return spec.id;
end
$function$;

revoke execute on function :"schema".capture from public;
