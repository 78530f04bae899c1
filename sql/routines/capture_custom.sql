-- Writes the rows of one statement, or one row, to the log for tables with excluded columns, a filter or virtual
-- columns, and for partitioned and inherited ones with `rows => 'keys'`. Columns are looked up at each call and the filter is the user's SQL, so the
-- statement is built at run time: dearer than capture_insert, cheaper than a log full of large
-- rows. Whatever fails in it (a column of the filter was dropped, the key is gone) becomes an 'x'
-- row, on which readers take a fresh copy: the application's write goes through. Arguments: see
-- capture_insert.
create or replace function :"schema".capture_custom() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
-- row_to_json prints ranges, intervals and floats as the session is set.
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
as $function$
declare
  spec topic%rowtype;
  image text;
  old_side text := 'select null::json as image, 0::bigint as ordinal where false';
  new_side text := old_side;
  olds json[];
  news json[];
  operations text[];
  wake text := coalesce(nullif(tg_argv[1], ''), wake_mode());
begin
  begin
    select * into strict spec from topic where id = tg_argv[0]::bigint and relation is not null;
    -- A writer whose snapshot is older than the capture sees other rules than this trigger stands for.
    if topic_rules(spec) <> tg_argv[6] then
      raise exception 'the rules of the topic changed';
    end if;
    image := captured_image(spec, tg_relid);
    if tg_level = 'ROW' then
      -- One row travels as a parameter: $1 is OLD, $2 is NEW.
      if tg_op <> 'INSERT' then
        old_side := 'select ' || image || ' as image, 1::bigint as ordinal from ' || captured_source(tg_relid, '(select ($1).*)') || ' as r';
      end if;
      if tg_op <> 'DELETE' then
        new_side := 'select ' || image || ' as image, 1::bigint as ordinal from ' || captured_source(tg_relid, '(select ($2).*)') || ' as r';
      end if;
    else
      if tg_op <> 'INSERT' then
        old_side := 'select ' || image || ' as image, row_number() over () as ordinal from ' || captured_source(tg_relid, 'trunkline_old') || ' as r';
      end if;
      if tg_op <> 'DELETE' then
        new_side := 'select ' || image || ' as image, row_number() over () as ordinal from ' || captured_source(tg_relid, 'trunkline_new') || ' as r';
      end if;
    end if;
    execute captured_rows(old_side, new_side, spec.rows = 'keys') into olds, news, operations
    using
      case when tg_level = 'ROW' and tg_op <> 'INSERT' then old end,
      case when tg_level = 'ROW' and tg_op <> 'DELETE' then new end;
  exception when others then
    operations := array['x'];
    olds := array[null::json];
    news := array[null::json];
  end;
  if operations is null then
    return null;
  end if;

  perform write_log(tg_argv[0]::bigint, operations, olds, news);
  if wake = 'always' or (wake = 'elided' and somebody_sleeps(tg_argv[2]::integer, tg_argv[3]::integer)) then
    perform pg_notify(tg_argv[4], '');
  end if;
  return null;
end
$function$;

revoke execute on function :"schema".capture_custom from public;
