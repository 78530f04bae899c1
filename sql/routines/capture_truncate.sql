-- Writes a TRUNCATE to the log: `t` when all rows of the captured table are gone, `x` when only those of
-- one of its partitions or children are. TRUNCATE of a partitioned table fires its trigger first and then
-- those of the partitions, which have nothing to add. Arguments: see capture_insert.
create or replace function :"schema".capture_truncate() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  topic_id constant bigint := tg_argv[0]::bigint;
begin
  if tg_argv[5] = 'x' and 't' = (
    select l.operation from log as l where l.topic = topic_id and l.xid = txid_current() order by l.id desc limit 1
  ) then
    return null;
  end if;
  perform write_log(topic_id, array[tg_argv[5]], array[null::json], array[null::json]);
  perform finish_capture(tg_argv, 1);
  return null;
end
$function$;

revoke execute on function :"schema".capture_truncate from public;
