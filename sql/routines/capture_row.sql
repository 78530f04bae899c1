-- Writes one row to the log: the trigger of partitioned tables and inheritance trees, full images.
-- A row trigger on the root is cloned to present, new and attached partitions and fires for writes
-- that name a partition, where a statement trigger on the root does not. Arguments: see
-- capture_insert.
create or replace function :"schema".capture_row() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
-- row_to_json prints ranges, intervals and floats as the session is set.
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
as $function$
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  else
    insert into log_2 (topic, operation, old, new)
    values (
      tg_argv[0]::bigint,
      case tg_op when 'INSERT' then 'i' when 'UPDATE' then 'u' else 'd' end,
      case when tg_op <> 'INSERT' then row_to_json(old) end,
      case when tg_op <> 'DELETE' then row_to_json(new) end
    );
  end if;

  perform finish_capture(tg_argv, 1);
  return null;
end
$function$;

revoke execute on function :"schema".capture_row from public;
