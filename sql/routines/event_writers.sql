-- Virtual transaction ids of the transactions that have written events, or are about to, and are still open; prepared ones
-- begin with '-1/'. A commit is visible before its locks go, so a writer is in here, or its events can be read, or there are
-- none of it.
create or replace function :"schema".event_writers() returns text[]
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  return (
    select coalesce(array_agg(distinct l.virtualtransaction), '{}')
    from pg_locks as l
    where l.locktype = 'relation'
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
      and l.relation = 'event'::regclass
      and l.mode = 'RowExclusiveLock'
  );
end
$function$;

revoke execute on function :"schema".event_writers from public;
