-- The slot that a key of a relay belongs to. Events without a key are spread by their id.
create or replace function :"schema".key_slot(key text, log_id bigint, slots integer) returns smallint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $function$
  select (get_byte(sha256(convert_to(coalesce($1, $2::text), 'UTF8')), 0) % $3)::smallint
$function$;

revoke execute on function :"schema".key_slot from public;
