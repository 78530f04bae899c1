-- Trigger of the event table, there while something is published: writes the events of one statement to the log as emit() would,
-- those of the aggregate types that are its arguments. Topic: the aggregate's type; key: its id.
--
-- No lock on the key is needed (emit() takes one): who appends the next version of a stream has seen this one committed, and
-- draws a higher id (docs/events.md, E7).
create or replace function :"schema".publish_event() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  written bigint;
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  else
    insert into log_2 (topic, operation, key, type, payload, headers)
    select hashtextextended(n.aggregate_type, 0), 'e', n.aggregate_id, n.type, n.payload, event_headers(n.id, n.version, n.metadata)
    from trunkline_new as n where n.aggregate_type = any (tg_argv) order by n.position;
  end if;
  get diagnostics written = row_count;
  if written = 0 then
    return null;
  end if;
  if currval('log_id_seq') % 4096 < written then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
  if wake_mode() <> 'off' and (wake_mode() = 'always' or exists (
    select from (select distinct n.aggregate_type from trunkline_new as n where n.aggregate_type = any (tg_argv)) as t
    where somebody_sleeps(1953658222, wake_key(hashtextextended(t.aggregate_type, 0)))
  )) then
    perform pg_notify((select i.channel from installation as i), '');
  end if;
  return null;
end
$function$;

revoke execute on function :"schema".publish_event from public;
