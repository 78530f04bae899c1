-- Virtual transaction ids of the transactions that have written to the log and are still open. A commit
-- is visible before its locks go, so a writer is in here, or its rows can be read, or it never was.
-- PL/pgSQL, because it keeps its plan: as a SQL function it would be planned at each call.
create or replace function :"schema".open_writers() returns text[]
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
      and l.relation in ('log_0'::regclass, 'log_1'::regclass, 'log_2'::regclass)
      and l.mode = 'RowExclusiveLock'
  );
end
$function$;

revoke execute on function :"schema".open_writers from public;
