-- Open writers of events but those who wait at the gate of a projection: what these have written they handle after the swap.
create or replace function :"schema".projection_writers(in_projection text) returns text[]
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select array(
    select w.writer from unnest(event_writers()) as w (writer)
    cross join (select hashtextextended('projection ' || in_projection, 'projection'::regclass::oid::bigint) as key) as k
    where not exists (
      select from pg_locks as l
      where l.virtualtransaction = w.writer and l.locktype = 'advisory' and not l.granted and l.objsubid = 1
        and l.classid::bigint = (k.key >> 32) & 4294967295 and l.objid::bigint = k.key & 4294967295
    )
  )
$function$;

revoke execute on function :"schema".projection_writers from public;
