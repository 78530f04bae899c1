-- Writes rows to the log's current child, in the order given, and a tick where one is due. For the
-- captures that are not on the hot path; they wake readers themselves.
create or replace function :"schema".write_log(in_topic bigint, operations text[], olds json[], news json[])
returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  else
    insert into log_2 (topic, operation, old, new)
    select in_topic, w.operation::"char", w.old, w.new
    from unnest(operations, olds, news) with ordinality as w (operation, old, new, ordinal)
    order by w.ordinal;
  end if;
  if currval('log_id_seq') % 4096 < cardinality(operations) then
    insert into tick (log_id) values (currval('log_id_seq'));
  end if;
end
$function$;

revoke execute on function :"schema".write_log from public;
