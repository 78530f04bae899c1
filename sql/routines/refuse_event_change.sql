-- Events are not changed and not removed, by nobody: the trigger's answer to UPDATE, DELETE and TRUNCATE.
create or replace function :"schema".refuse_event_change() returns trigger
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  raise exception using errcode = 'TL011', message = format('%s of %I.event is refused: events are not changed', tg_op, tg_table_schema),
    hint = 'Append an event that corrects the earlier one. To forget a person''s data, encrypt it and delete the key (docs/events.md).';
end
$function$;

revoke execute on function :"schema".refuse_event_change from public;
