-- What a stored position must agree with to speak of this log: server, timeline, database and
-- installation. Fails on a standby, which has no timeline of its own to ask.
create or replace function :"schema".log_identity() returns text
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select concat_ws('-',
    (select system_identifier from pg_control_system()),
    -- pg_control_checkpoint() can show the old timeline for a minute after a promotion.
    left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (select d.oid from pg_database as d where d.datname = current_database()),
    (select i.id from installation as i)
  )
$function$;

revoke execute on function :"schema".log_identity from public;
