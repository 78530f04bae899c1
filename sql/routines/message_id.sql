-- What consumers tell a row of the log by, whenever and by whomever it is read: a uuid (version 8) from what tells two rows
-- apart even after a fail-over to an asynchronous standby, where ids and xids can be used again.
create or replace function :"schema".message_id(log_id bigint, xid bigint, created_at timestamptz) returns uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $function$
  select (substr(h, 1, 12) || '8' || substr(h, 14, 3)
    || to_hex((('x' || substr(h, 17, 1))::bit(4)::integer & 3) | 8) || substr(h, 18, 15))::uuid
  from encode(sha256(convert_to(
    $1 || '/' || $2 || '/' || to_char($3 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'UTF8'
  )), 'hex') as h
$function$;

revoke execute on function :"schema".message_id from public;
