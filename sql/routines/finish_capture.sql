-- What now and then is left to do after a statement's rows are in the log: leave a tick for readers that
-- are far behind, notify. `arguments`: the trigger's. It runs with its caller's search_path.
create or replace function :"schema".finish_capture(arguments text[], written bigint) returns void
language plpgsql
as $function$
declare
  wake text := coalesce(nullif(arguments[1], ''), wake_mode());
begin
  if currval('log_id_seq') % 4096 < written then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
  if wake = 'always' or (wake = 'elided' and somebody_sleeps(arguments[2]::integer, arguments[3]::integer)) then
    perform pg_notify(arguments[4], '');
  end if;
end
$function$;

revoke execute on function :"schema".finish_capture from public;
